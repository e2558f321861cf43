"""Secrets that stand in URLs: kept out of everything that is printed, logged or stored."""

import re
from collections.abc import Callable
from typing import Any

MASK = "***"
"""Stands where a secret was."""

NAME_OF_SECRET = re.compile("secret|token|pass|pwd|credential|key|auth|sig", re.IGNORECASE)
"""In names of variables and of a URL's parameters."""

_IN_URLS = (
    # a password, perhaps with slashes in it as AWS's have; but no port before a path
    re.compile(r"(?P<before>://[^/@\s:]*:)(?!\d+/)(?P<secret>[^/@\s]+(?:@[^/@\s]+)*(?=@)|[^@\s]+(?=@))"),
    re.compile(r"(?P<before>https?://)(?P<secret>[^/@\s:]+)(?=@)"),
    re.compile(
        rf"(?P<before>[?&][^=&\s]*(?:{NAME_OF_SECRET.pattern})[^=&\s]*=)"
        r"(?P<secret>[^&\s]+?)(?=[:;,.'\")]*(?:[&\s]|$))",  # an error's own comma or quote may follow
        re.IGNORECASE,
    ),
)


def mask_secrets(text: str, is_secret: Callable[[str], object] = bool) -> str:
    """A text with `***` in place of the passwords, tokens and signatures in its URLs.

    Args:
        is_secret: told what stands where a secret would; whether it is one.
    """

    def masked(match: re.Match[str]) -> str:
        return match["before"] + (MASK if is_secret(match["secret"]) else match["secret"])

    for pattern in _IN_URLS:
        text = pattern.sub(masked, text)
    return text


def mask_all_secrets(value: Any) -> Any:
    """A JSON value with `mask_secrets` done to all its texts."""
    if isinstance(value, dict):
        return {key: mask_all_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [mask_all_secrets(inner) for inner in value]
    return mask_secrets(value) if isinstance(value, str) else value


def secrets_in(url: str) -> list[str]:
    """The secrets that `mask_secrets` would mask."""
    return [match["secret"] for pattern in _IN_URLS for match in pattern.finditer(url)]
