"""What SIGTERM and Ctrl-C do: they end a command at once while it plans, and at the next step while it commits."""

import signal
from types import FrameType

from rendermill.manifests.storage.retries import shorten_retries

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Whether this process was asked to end."""

    def __init__(self) -> None:
        self.is_asked_for = False

    def ask(self, *_: object) -> None:
        """Handle a signal: take note and no more, as it may come in the middle of anything."""
        self.is_asked_for = True
        shorten_retries()


def interrupt_at_once() -> None:
    """From now on a signal raises KeyboardInterrupt where it finds the main thread."""
    for number in _SIGNALS:
        signal.signal(number, _raise)


def interrupt_between_steps() -> Interruption:
    """From now on, until this process ends, a signal is taken note of, and breaks nothing off."""
    interruption = Interruption()
    for number in _SIGNALS:
        signal.signal(number, interruption.ask)
    return interruption


def ignore_signals() -> None:
    """All is done and said, and ending takes a moment."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _raise(signal_number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
