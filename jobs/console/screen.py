"""The lines that a command prints. What Ray, diffusers and other libraries print goes to a log file."""

import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rendermill.manifests.errors import UserError, one_line, traceback_of
from rendermill.manifests.secrets import mask_secrets


class ReaderGone(Exception):
    """The reader of this process's output has closed it, as `head` does."""


def printable(text: str) -> str:
    """Return a text with a mark in place of control characters, which a terminal would obey, and of direction marks."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def json_text(value: Any, indent: int | None = None) -> str:
    """Return JSON that keeps the letters of all scripts, and escapes the characters that `printable` replaces."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return re.sub(r"[^\n -~]", lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1], text)


def write_out(out: TextIO, text: str) -> None:
    """Print a text and an end of line.

    Raises:
        ReaderGone: Nobody reads the output any more.
        UserError: The output cannot be written, for example because a disk is full.
    """
    try:
        print(text, file=out, flush=True)
    except OSError as error:
        discard(out)
        if isinstance(error, BrokenPipeError):
            raise ReaderGone from error
        raise UserError(f"cannot be written: {one_line(error)}", place="standard output") from error


def discard(out: TextIO) -> None:
    """Redirect a stream to nowhere, because flushing what it still holds would fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, out.fileno())
    os.close(nowhere)


@dataclass(frozen=True)
class Screen:
    """Prints the lines of a command.

    Attributes:
        log: The file that takes what Ray, diffusers and other libraries write to standard output and standard error.
        is_optional: Whether a command continues if its lines cannot be written any more.
    """

    out: TextIO
    log: Path
    is_optional: bool = False

    def line(self, text: str) -> None:
        """Print one line without secrets and without control characters, which a manifest may contain."""
        self.text(printable(mask_secrets(text)))

    def text(self, text: str) -> None:
        """Print a text without changes.

        Raises:
            ReaderGone: Nobody reads the output any more.
            UserError: The output cannot be written, for example because a disk is full.
        """
        try:
            write_out(self.out, text)
        except (ReaderGone, UserError):
            if not self.is_optional:
                raise


@contextmanager
def open_screen(is_optional: bool = False) -> Iterator[Screen]:
    """Reserve the output of this process for a command: what libraries print, in C++ too, goes to a log file.

    Meanwhile secrets of URLs are masked in all logging, also in what Ray logs into files of its own.

    Args:
        is_optional: Whether the command continues if its lines cannot be written any more.
    """
    descriptor, name = tempfile.mkstemp(prefix="rendermill-", suffix=".log")
    sys.stdout.flush()
    kept = [os.dup(stream) for stream in (1, 2)]
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    try:
        with os.fdopen(os.dup(kept[0]), "w") as out, masked_logs():
            yield Screen(out, Path(name), is_optional)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, original in zip((1, 2), kept, strict=True):
            os.dup2(original, stream)
            os.close(original)


@contextmanager
def masked_logs() -> Iterator[None]:
    """Hide secrets of URLs in everything that is logged within the context."""
    make = logging.getLogRecordFactory()

    def make_masked(*given: Any, **named: Any) -> logging.LogRecord:
        record = make(*given, **named)
        with suppress(TypeError, ValueError, KeyError):  # logging itself reports a wrong format
            record.msg, record.args = mask_secrets(record.getMessage()), ()
        if record.exc_info and record.exc_info[1]:
            record.exc_text = traceback_of(record.exc_info[1]).rstrip()
        return record

    logging.setLogRecordFactory(make_masked)
    try:
        yield
    finally:
        logging.setLogRecordFactory(make)
