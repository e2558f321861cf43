"""The one exception that means: the user can mend this; and how errors are told, without the secrets in URLs."""

import traceback

from manifests.secrets import mask_secrets


class UserError(Exception):
    """A mistake of the user's. Its message is one line that names the file, key or row and what would be right."""

    def __init__(self, message: str) -> None:
        super().__init__(mask_secrets(message))


def one_line(error: BaseException, max_length: int = 300) -> str:
    """An exception's message on a single line, for an error message or a table cell."""
    text = mask_secrets(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


def traceback_of(error: BaseException) -> str:
    """An exception with its traceback, for a log."""
    return mask_secrets("".join(traceback.format_exception(error)))
