"""`UserError`, a mistake that the user can correct, and the text of any error, without the secrets in URLs."""

import re
import traceback
from typing import NamedTuple

from rendermill.manifests.secrets import mask_secrets

_SAYS_NOTHING = re.compile(r"(^|: |\[Errno -?\d+\] )(None)?\s*$")
"""Matches messages of stores' errors that end without words: nothing or "None", perhaps after a colon or a number."""


Keys = tuple[str, ...]
"""The path of a key in a job file: `("models", "sana", "batch")`."""


class UserError(Exception):
    """A mistake that the user can correct, as one line: `job.yaml:3: models.sana.checkpoint a/b: no such folder`.

    Args:
        problem: What is wrong and what would be right, in one line, without the key.
        keys: The job's key that the mistake is at; empty if it is at none.
        subject: The file, folder or URL that the key names, if the problem is about that.
        place: Where the key was set: a file and its line, a variable, or the command line.
    """

    def __init__(self, problem: str, keys: Keys = (), subject: str = "", place: str = "") -> None:
        named = " ".join(part for part in (".".join(keys), subject) if part)
        super().__init__(mask_secrets(": ".join(part for part in (place, named, problem) if part)))
        self.problem, self.keys, self.subject = problem, keys, subject

    def within(self, *section: str) -> "UserError":
        """Return this error with the keys of the section that its own keys belong to."""
        return UserError(self.problem, (*section, *self.keys), self.subject)


class Problem(NamedTuple):
    """The reason why a request cannot be rendered or stored.

    Attributes:
        name: of the field with the wrong value, or of several: `num_frames, fps`.
        words: what is wrong, and what would be right.
    """

    name: str
    words: str

    def __str__(self) -> str:
        return f"{self.name}: {self.words}"


class RowProblem(Exception):
    """The reason why one row of a manifest cannot be rendered."""


class LeaseLost(Exception):
    """Another run holds the output now; this one must not write to it any more."""


def one_line(error: BaseException, max_length: int = 300) -> str:
    """Return an exception's message on a single line, for a message or a table cell; its class if it has none."""
    text = mask_secrets(" ".join(_message(error).split())) or type(error).__name__
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


def traceback_of(error: BaseException) -> str:
    """Return an exception with its traceback, for a log."""
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:  # it reads attributes of the exception, which may be properties that raise
        frames = "".join(traceback.format_tb(error.__traceback__))
        text = f"Traceback (most recent call last):\n{frames}{type(error).__name__}: {_message(error)}\n"
    return mask_secrets(text)


def _message(error: BaseException) -> str:
    """Return an exception's message, or that of its cause if it has none; some exceptions cannot give theirs."""
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
