"""What a person sees of a job: a bar a model on a terminal, plain lines in a log; Ray's own chatter goes to a file."""

import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from manifests.errors import traceback_of
from manifests.secrets import mask_secrets

_SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class Screen:
    """Where a job's own lines go.

    Attributes:
        log: the file that takes what Ray, diffusers and others write to standard error.
    """

    out: TextIO
    log: Path

    def line(self, text: str) -> None:
        """Print one line; control characters, which a manifest may hold, and secrets never reach the terminal."""
        safe = "".join(character if character.isprintable() else "�" for character in mask_secrets(text))
        print(safe, file=self.out, flush=True)


@contextmanager
def open_screen() -> Iterator[Screen]:
    """Keep the process's output to ourselves: what anything else, also C++, writes there goes to a log file.

    What is logged meanwhile, there or by Ray into files of its own, has no secrets of URLs.
    """
    descriptor, name = tempfile.mkstemp(prefix="rendermill-", suffix=".log")
    sys.stdout.flush()
    kept = [os.dup(stream) for stream in (1, 2)]
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    try:
        with os.fdopen(os.dup(kept[0]), "w") as out, _masked_logs():
            yield Screen(out, Path(name))
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


@contextmanager
def show_progress(screen: Screen, num_to_do: Mapping[str, int]) -> Iterator[Callable[[str, int, int], None]]:
    """Show how far each model is.

    Args:
        num_to_do: items by model.

    Yields:
        A function to call with a model's name and the items newly finished and failed.
    """
    if screen.out.isatty():
        with _bars(screen, num_to_do) as advance:
            yield advance
    else:
        yield _Lines(screen, num_to_do).advance


@contextmanager
def _bars(screen: Screen, num_to_do: Mapping[str, int]) -> Iterator[Callable[[str, int, int], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failures]}"),
    )
    progress = Progress(
        *columns,
        console=Console(file=screen.out),
        refresh_per_second=2,
        redirect_stdout=False,  # what others write is for the log, and rich would show it
        redirect_stderr=False,
    )
    with progress:
        bars = {
            model: progress.add_task(model, total=total, failures="") for model, total in num_to_do.items() if total
        }
        num_failed = dict.fromkeys(bars, 0)

        def advance(model: str, num_finished: int, num_newly_failed: int) -> None:
            num_failed[model] += num_newly_failed
            failures = f"[red]{num_failed[model]} failed" if num_failed[model] else ""
            progress.update(bars[model], advance=num_finished + num_newly_failed, failures=failures)

        yield advance


class _Lines:
    """One line every few seconds that counts every model."""

    def __init__(self, screen: Screen, num_to_do: Mapping[str, int]) -> None:
        self._screen = screen
        self._total = {model: total for model, total in num_to_do.items() if total}
        self._done = dict.fromkeys(self._total, 0)
        self._failed = dict.fromkeys(self._total, 0)
        self._next_line = time.monotonic()

    def advance(self, model: str, num_finished: int, num_newly_failed: int) -> None:
        self._done[model] += num_finished + num_newly_failed
        self._failed[model] += num_newly_failed
        is_done = self._done[model] == self._total[model]
        if time.monotonic() >= self._next_line or is_done:
            self._next_line = time.monotonic() + _SECONDS_BETWEEN_LINES
            self._screen.line("  ".join(self._count(name) for name in self._total))

    def _count(self, model: str) -> str:
        failed = f" ({self._failed[model]} failed)" if self._failed[model] else ""
        return f"{model} {self._done[model]}/{self._total[model]}{failed}"
