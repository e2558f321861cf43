"""What an engine puts into a batch, and what it returns for a request."""

from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from rendermill.manifests.request import Request


class Encoded(NamedTuple):
    """A request with its encoded prompts.

    Attributes:
        embeddings: from `Model.encode`.
        num_tokens_cut: from `Model.count_cut_tokens`.
    """

    request: Request
    embeddings: Any
    num_tokens_cut: int | None


@dataclass
class Outcome:
    """The result of one request: frames or an error.

    Attributes:
        batch_size: the number of items that were rendered together.
        started_at: when the batch began, UTC.
        seconds: the item's share of its batch's time; None for an item that was not rendered.
        attempt: the number of the attempt, from 1.
        num_tokens_cut: the number of tokens of the prompts that the text encoder left out; None: unknown.
        frames: uint8, (frames, height, width, 3), RGB; None for a failure.
        audio: float32, (channels, samples), -1 … 1; None if there is no sound.
        audio_rate: samples per second of the sound.
        error_type: the class of the error; None for a rendered item.
        error: its message.
    """

    request: Request
    batch_size: int
    started_at: datetime
    seconds: float | None
    attempt: int
    num_tokens_cut: int | None = None
    frames: np.ndarray | None = None
    audio: np.ndarray | None = None
    audio_rate: int | None = None
    error_type: str | None = None
    error: str | None = None


Outcomes = Future[list[Outcome]]
"""The outcomes of a batch, available when the device has rendered it."""


def completed(outcomes: list[Outcome]) -> Outcomes:
    """Return outcomes that are available at once."""
    future = Outcomes()
    future.set_result(outcomes)
    return future


def failed(request: Request, error_type: str, error: str, attempt: int) -> Outcome:
    """Return the outcome of an item that could not be rendered."""
    return Outcome(
        request=request,
        batch_size=1,
        started_at=datetime.now(UTC),
        seconds=None,
        attempt=attempt,
        error_type=error_type,
        error=error,
    )
