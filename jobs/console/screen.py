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
    """Whoever read this process's output has closed it, as `head` does."""


def printable(text: str) -> str:
    """A line without what a terminal would obey: control characters, escapes, marks that turn the direction round."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON that keeps every script's letters, and escapes what `printable` would replace."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return re.sub(r"[^\n -~]", lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1], text)


def write_out(out: TextIO, text: str) -> None:
    """Print a text as it is, and an end of line.

    Raises:
        ReaderGone: nobody reads it any more.
        UserError: it cannot be written, as to a full disk.
    """
    try:
        print(text, file=out, flush=True)
    except OSError as error:
        discard(out)
        if isinstance(error, BrokenPipeError):
            raise ReaderGone from error
        raise UserError(f"standard output: cannot be written: {one_line(error)}") from error


def discard(out: TextIO) -> None:
    """Let nothing more arrive where a stream leads to; what it still holds would fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, out.fileno())
    os.close(nowhere)


@dataclass(frozen=True)
class Screen:
    """Where a job's own lines go.

    Attributes:
        log: the file that takes what Ray, diffusers and others write to standard error.
        is_optional: whether a command goes on although its lines cannot be written any more.
    """

    out: TextIO
    log: Path
    is_optional: bool = False

    def line(self, text: str) -> None:
        """Print one line; control characters, which a manifest may hold, and secrets never reach the terminal."""
        self.text(printable(mask_secrets(text)))

    def text(self, text: str) -> None:
        """Print a text as it is.

        Raises:
            ReaderGone: nobody reads it any more.
            UserError: it cannot be written, as to a full disk.
        """
        try:
            write_out(self.out, text)
        except (ReaderGone, UserError):
            if not self.is_optional:
                raise


@contextmanager
def open_screen(is_optional: bool = False) -> Iterator[Screen]:
    """Keep the process's output to ourselves: what anything else, also C++, writes there goes to a log file.

    What is logged meanwhile, there or by Ray into files of its own, has no secrets of URLs.

    Args:
        is_optional: whether the command goes on although its lines cannot be written any more.
    """
    descriptor, name = tempfile.mkstemp(prefix="rendermill-", suffix=".log")
    sys.stdout.flush()
    kept = [os.dup(stream) for stream in (1, 2)]
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    try:
        with os.fdopen(os.dup(kept[0]), "w") as out, _masked_logs():
            yield Screen(out, Path(name), is_optional)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, original in zip((1, 2), kept, strict=True):
            os.dup2(original, stream)
            os.close(original)


@contextmanager
def _masked_logs() -> Iterator[None]:
    make = logging.getLogRecordFactory()

    def make_masked(*given: Any, **named: Any) -> logging.LogRecord:
        record = make(*given, **named)
        with suppress(TypeError, ValueError, KeyError):  # logging itself will say what is amiss
            record.msg, record.args = mask_secrets(record.getMessage()), ()
        if record.exc_info and record.exc_info[1]:
            record.exc_text = traceback_of(record.exc_info[1]).rstrip()
        return record

    logging.setLogRecordFactory(make_masked)
    try:
        yield
    finally:
        logging.setLogRecordFactory(make)
