"""Calls of a store that are made again, ever more seldom, while they fail in a way that may pass."""

import time

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

_CLIENT_LIBRARIES = {"botocore", "aiohttp", "gcsfs", "google", "azure"}
_MAX_SECONDS_BETWEEN_TRIES = 20.0
_SECONDS_BETWEEN_LOOKS = 0.2
_MAX_SECONDS_IN_A_HURRY = 5.0


class _Hurry:
    """Whether this process was asked to end; signal handlers set it, so it is no more than a flag."""

    is_on = False


def hurry() -> None:
    """From now on try again for a few seconds at most, as the process was asked to end. Safe in a signal handler."""
    _Hurry.is_on = True


def is_passing(error: BaseException) -> bool:
    """Whether an error of a store may be gone at another try: no connection, throttling, a full disk.

    What is refused or not there stays so.
    """
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError):
        # refusals have classes of their own, and what Arrow cannot read has no number
        return type(error) is OSError and error.errno is not None
    return any(base.__module__.partition(".")[0] in _CLIENT_LIBRARIES for base in type(error).__mro__)


def patience(seconds: float) -> Retrying:
    """Calls a function again, ever more seldom, while it fails in a way that may pass."""

    def is_over(state: RetryCallState) -> bool:
        limit = min(seconds, _MAX_SECONDS_IN_A_HURRY) if _Hurry.is_on else seconds
        return (state.seconds_since_start or 0.0) >= limit

    return Retrying(
        retry=retry_if_exception(is_passing),
        wait=wait_random_exponential(max=_MAX_SECONDS_BETWEEN_TRIES),
        stop=is_over,
        sleep=_sleep,
        reraise=True,
    )


def _sleep(seconds: float) -> None:
    """Wait, but not for long once the process was asked to end."""
    was_on, end = _Hurry.is_on, time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and _Hurry.is_on == was_on:
        time.sleep(min(left, _SECONDS_BETWEEN_LOOKS))
