"""The progress of a command: on a terminal one bar for each model, elsewhere a line every few seconds."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rendermill.jobs.console.screen import Screen

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def show_progress(screen: Screen, num_to_do: Mapping[str, int]) -> Iterator[Callable[[str, int, int], None]]:
    """Show how far each model is.

    Args:
        num_to_do: The number of items by model.

    Yields:
        A function to call with the name of a model and the numbers of newly finished and newly failed items.
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
        redirect_stdout=False,  # what libraries print is for the log, and rich would show it
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
    """Prints a line with the counts of all models every few seconds."""

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
