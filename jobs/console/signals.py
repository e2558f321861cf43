"""What SIGTERM and Ctrl-C do: they end a command at once while it plans, and at the next step while it commits.

Python lets only the main thread handle signals. A command that runs in another thread leaves them alone.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rendermill.manifests.storage.retries import restore_retries, shorten_retries

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Whether this process was asked to end."""

    def __init__(self) -> None:
        self.is_asked_for = False

    def ask(self, *_: object) -> None:
        """Handle a signal: only remember it, as it may arrive in the middle of anything."""
        self.is_asked_for = True
        shorten_retries()


def interrupt_at_once() -> None:
    """From now on, raise KeyboardInterrupt in the main thread if a signal arrives."""
    _handle_with(_raise)


def interrupt_between_steps() -> Interruption:
    """From now on, only remember signals; return the object that tells whether one has arrived."""
    interruption = Interruption()
    _handle_with(interruption.ask)
    return interruption


def ignore_signals() -> None:
    """From now on, ignore signals: all is committed and printed, and ending takes a moment."""
    _handle_with(signal.SIG_IGN)


@contextmanager
def signals_restored() -> Iterator[None]:
    """Restore what this process does about signals at the end of the context, for callers that live on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: a handler that C code installed, which Python cannot install again
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        restore_retries()


def _handle_with(handler: Callable[[int, FrameType | None], Any] | signal.Handlers) -> None:
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            signal.signal(number, handler)


def _raise(signal_number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
