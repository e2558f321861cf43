"""Secrets that stand in URLs: kept out of everything that is printed, logged or stored."""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

MASK = "***"
"""Stands where a secret was."""

NAME_OF_SECRET = re.compile("secret|token|pass|pwd|credential|key|auth|sig", re.IGNORECASE)
"""In names of variables and of a URL's parameters."""

# No URL holds white space, so each word is looked at by itself; and as no quantifier gives back what it took (`++`),
# that takes no longer than in proportion to the word's length, whatever is in it.
_WORD = re.compile(r"\S+")
_PASSWORD = re.compile(
    # perhaps with slashes in it as AWS's have; but no port before a path
    r"://[^/@:]*+:(?!\d++/)(?P<secret>[^/@]++(?=@)(?:@[^/@]++(?=@))*+|[^@]++(?=@))"
)
_TOKEN = re.compile(r"https?://(?P<secret>[^/@:]++)(?=@)")
_PARAMETER = re.compile(r"[?&](?P<name>[^=&]*+)=?+")
_VALUE = re.compile(r"[^&]*+")
_PUNCTUATION = ":;,.'\")"
"""May follow a URL in an error's message."""


class _Span(NamedTuple):
    start: int
    end: int


_HIDDEN: dict[str, str] = {}


def hide(value: str, shown: str) -> None:
    """From now on, let `mask_secrets` of this process show something else in a value's place."""
    _HIDDEN[value] = shown


def mask_secrets(text: str, is_secret: Callable[[str], object] = bool) -> str:
    """A text with `***` in place of the passwords, tokens and signatures in its URLs, and without what is hidden.

    Args:
        is_secret: told what stands where a secret would; whether it is one.
    """

    def masked(word: re.Match[str]) -> str:
        text = word[0]
        for find in _FINDERS:
            text = _masked(text, find(text), is_secret)
        return text

    for value in sorted(_HIDDEN, key=len, reverse=True):
        text = text.replace(value, _HIDDEN[value])
    return _WORD.sub(masked, text) if _may_hold_secrets(text) else text


def mask_all_secrets(value: Any) -> Any:
    """A JSON value with `mask_secrets` done to all its texts."""
    if isinstance(value, dict):
        return {key: mask_all_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [mask_all_secrets(inner) for inner in value]
    return mask_secrets(value) if isinstance(value, str) else value


def secrets_in(url: str) -> list[str]:
    """The secrets that `mask_secrets` would mask."""
    words = _WORD.findall(url)
    return [word[span.start : span.end] for find in _FINDERS for word in words for span in find(word)]


def _may_hold_secrets(text: str) -> bool:
    return "@" in text or "=" in text


def _masked(text: str, spans: Iterator[_Span], is_secret: Callable[[str], object]) -> str:
    pieces, end = [], 0
    for span in spans:
        secret = text[span.start : span.end]
        pieces += [text[end : span.start], MASK if is_secret(secret) else secret]
        end = span.end
    return "".join([*pieces, text[end:]])


def _passwords(word: str) -> Iterator[_Span]:
    # beyond the last @ there is none, and to look for one from every :// on would take long
    for match in _PASSWORD.finditer(word, 0, word.rfind("@") + 1):
        yield _Span(*match.span("secret"))


def _tokens(word: str) -> Iterator[_Span]:
    for match in _TOKEN.finditer(word):
        yield _Span(*match.span("secret"))


def _parameters(word: str) -> Iterator[_Span]:
    place = 0
    while match := _PARAMETER.search(word, place):
        place = match.end()
        if not (match[0].endswith("=") and NAME_OF_SECRET.search(match["name"])):
            continue
        value = _VALUE.match(word, place)
        assert value is not None
        if value[0]:
            length = max(1, len(value[0].rstrip(_PUNCTUATION)))
            place = value.end()
            yield _Span(value.start(), value.start() + length)


_FINDERS = (_passwords, _tokens, _parameters)
