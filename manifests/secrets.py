"""Secrets in URLs, which are kept out of everything that is printed, logged or stored."""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

MASK = "***"
"""Replaces a secret."""

NAME_OF_SECRET = re.compile("secret|token|pass|pwd|credential|key|auth|sig", re.IGNORECASE)
"""Matches names of variables and URL parameters whose values are secret."""

# No URL holds white space, so each word is searched by itself. Possessive quantifiers (`++`) never backtrack, so the
# time is proportional to the word's length, even for hostile input.
_WORD = re.compile(r"\S+")
_PASSWORD = re.compile(
    # may contain slashes, as AWS's keys do; but a port before a path is no password
    r"://[^/@:]*+:(?!\d++/)(?P<secret>[^/@]++(?=@)(?:@[^/@]++(?=@))*+|[^@]++(?=@))"
)
_TOKEN = re.compile(r"https?://(?P<secret>[^/@:]++)(?=@)")
_PARAMETER = re.compile(r"[?&](?P<name>[^=&]*+)=?+")
_VALUE = re.compile(r"[^&]*+")
_PUNCTUATION = ":;,.'\")"
"""Characters that may follow a URL in an error's message."""


class _Span(NamedTuple):
    start: int
    end: int


_HIDDEN: dict[str, str] = {}


def hide(value: str, shown: str) -> None:
    """Let `mask_secrets` in this process replace a value by another text from now on."""
    _HIDDEN[value] = shown


def mask_secrets(text: str, is_secret: Callable[[str], object] = bool) -> str:
    """Replace the passwords, tokens and signatures in a text's URLs by `***`, and values given to `hide` by theirs.

    Args:
        is_secret: takes a value in the place of a secret; returns whether it is one.
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
    """Apply `mask_secrets` to all texts in a JSON value."""
    if isinstance(value, dict):
        return {key: mask_all_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [mask_all_secrets(inner) for inner in value]
    return mask_secrets(value) if isinstance(value, str) else value


def secrets_in(url: str) -> list[str]:
    """Return the secrets that `mask_secrets` would replace."""
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
    # there is none after the last @, and searching from every :// on would take long
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
