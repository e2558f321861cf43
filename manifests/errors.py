"""The one exception that means: the user can mend this; and how errors are told, without the secrets in URLs."""

import re
import traceback

from rendermill.manifests.secrets import mask_secrets

_SAYS_NOTHING = re.compile(r"(^|: |\[Errno -?\d+\] )(None)?\s*$")
"""What is left of the message of some stores' errors: nothing, "None", or that after a colon or a number."""


class UserError(Exception):
    """A mistake of the user's. Its message is one line that names the file, key or row and what would be right."""

    def __init__(self, message: str) -> None:
        super().__init__(mask_secrets(message))


class LeaseLost(Exception):
    """Another run holds the output now; this one must not write there any more."""


def one_line(error: BaseException, max_length: int = 300) -> str:
    """An exception's message on a single line, for an error message or a table cell; its class if it has none."""
    text = mask_secrets(" ".join(_message(error).split())) or type(error).__name__
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


def traceback_of(error: BaseException) -> str:
    """An exception with its traceback, for a log."""
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:  # it reads attributes of the exception, which may be properties that raise
        frames = "".join(traceback.format_tb(error.__traceback__))
        text = f"Traceback (most recent call last):\n{frames}{type(error).__name__}: {_message(error)}\n"
    return mask_secrets(text)


def _message(error: BaseException) -> str:
    """An exception's own words, which some cannot give, or those of what caused it, where it has none."""
    try:
        text = str(error)
    except BaseException as failure:
        return f"{type(error).__name__}; its message cannot be read ({type(failure).__name__})"
    if not _SAYS_NOTHING.search(text):
        return text
    own, cause = _SAYS_NOTHING.sub("", text), error.__cause__
    if cause is None or own.startswith("An error occurred ("):  # S3's clients give code and operation
        return own
    return _message(cause) or type(cause).__name__
