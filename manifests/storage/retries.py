"""Retries of calls to a store: while an error may be transient, the call is made again at growing intervals."""

import time

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

_CLIENT_LIBRARIES = {"botocore", "aiohttp", "gcsfs", "google", "azure"}
_MAX_SECONDS_BETWEEN_TRIES = 20.0
_SECONDS_BETWEEN_CHECKS = 0.2
_MAX_SECONDS_WHILE_ENDING = 5.0


class _Ending:
    """Whether this process was asked to end: a plain flag, because signal handlers set it."""

    is_on = False


def shorten_retries() -> None:
    """Limit all retries of this process to a few seconds from now on, because it was asked to end.

    Safe to call in a signal handler.
    """
    _Ending.is_on = True


def restore_retries() -> None:
    """Undo `shorten_retries`, because this process goes on after all."""
    _Ending.is_on = False


def is_transient(error: BaseException) -> bool:
    """Whether an error of a store may be gone at the next try: no connection, throttling, a full disk.

    A refusal (no permission) or a missing file is not transient.
    """
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError):
        # refusals are subclasses of OSError, and Arrow raises a plain OSError without a number for data it cannot read
        return type(error) is OSError and error.errno is not None
    return any(base.__module__.partition(".")[0] in _CLIENT_LIBRARIES for base in type(error).__mro__)


def with_retries(seconds: float) -> Retrying:
    """Return a caller, `with_retries(60)(function, *arguments)`, that repeats a call after transient errors.

    Args:
        seconds: The time after which the last error is raised. 0 means one try.
    """

    def is_over(state: RetryCallState) -> bool:
        limit = min(seconds, _MAX_SECONDS_WHILE_ENDING) if _Ending.is_on else seconds
        return (state.seconds_since_start or 0.0) >= limit

    return Retrying(
        retry=retry_if_exception(is_transient),
        wait=wait_random_exponential(max=_MAX_SECONDS_BETWEEN_TRIES),
        stop=is_over,
        sleep=_sleep,
        reraise=True,
    )


def _sleep(seconds: float) -> None:
    """Wait, but only until the process is asked to end."""
    was_on, end = _Ending.is_on, time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and _Ending.is_on == was_on:
        time.sleep(min(left, _SECONDS_BETWEEN_CHECKS))
