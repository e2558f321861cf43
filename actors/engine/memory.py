"""Keeps batches within the device's memory: learns what they need, checks before, and makes room if it runs out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from rendermill.actors.engine.device_memory import GIB, DeviceMemory
from rendermill.actors.engine.reporter import Reporter
from rendermill.actors.engine.tuning.batch_sizer import MEMORY_MARGIN, Learned
from rendermill.actors.engine.tuning.state import TuningState
from rendermill.manifests.request import Request, Shape
from rendermill.models.interface import Model


class DoesNotFit(Exception):
    """The weights, or strict mode's reference batch, need more memory than is available."""


class MemoryGuard:
    """Decides how much to render at once, as far as memory matters.

    Args:
        reference_batch: strict mode's batch size, which must fit; None: any batch size will do.
    """

    def __init__(
        self,
        device: DeviceMemory,
        model: Model,
        tuning: TuningState,
        reference_batch: int | None,
        reporter: Reporter,
    ) -> None:
        self._device, self._model, self._tuning, self._reporter = device, model, tuning, reporter
        self._reference_batch = reference_batch

    def batch_size(self, shape: Shape) -> int:
        """Return the size of the next batch, which fits as far as is known."""
        return self._tuning.batch_size(shape, self._device.available_bytes())

    def check(self, request: Request, embeddings: Any) -> None:
        """Make sure that it is known what a shape needs, and that strict mode's reference batch fits.

        Args:
            embeddings: of this request, from `Model.encode`.

        Raises:
            DoesNotFit: the reference batch does not fit; the message names settings that would help.
        """
        shape, available = request.shape, self._device.available_bytes()
        if available is None:
            return
        if not self._tuning.of(shape).peak_bytes:
            self._rehearse(request, embeddings, available)
        if self._reference_batch:
            peaks = self._tuning.of(shape)
            needed = peaks.predicted_peak(self._reference_batch)
            if needed is not None and needed > available:
                raise DoesNotFit(_explain_reference(self._reference_batch, needed, available, peaks))

    @contextmanager
    def measuring(self, shape: Shape, num_items: int) -> Iterator[None]:
        """Learn the memory that a batch needs from what is started within this context; waits for nothing."""
        weights_bytes = self._device.allocated_bytes()
        self._device.begin_peak()
        yield
        peak = self._device.peak_bytes()
        if peak is not None:
            self._tuning.add_peak(shape, 0, weights_bytes)
            self._tuning.add_peak(shape, num_items, peak)

    def make_room(self, shape: Shape, num_items: int) -> bool:
        """Make room after memory ran out with a batch; return whether it is worth another attempt.

        Call this when the error is no longer referenced, because its traceback holds the batch's tensors.
        """
        self._device.release()
        if self._tuning.shrink(shape, num_items):
            self._reporter.note(
                f"memory ran out with {num_items} items of {shape}; they were rendered again in smaller batches"
            )
            return True
        if self._reference_batch:  # what saves memory changes bits, so strict mode may not
            self._tuning.add_peak(shape, self._reference_batch, (self._device.available_bytes() or 0) + 1)
            return False
        rescue = self._model.save_memory()
        if rescue is not None:
            self._reporter.note(f"memory ran out with {num_items} items of {shape}; since then {rescue}")
        return rescue is not None

    def describe(self) -> str:
        """Return the state of the device's memory as text; empty without a GPU."""
        return self._device.describe()

    def _rehearse(self, request: Request, embeddings: Any, available: int) -> None:
        """Render an item and drop it, alone and then in the reference batch, to learn what memory that needs.

        Args:
            available: bytes.
        """
        shape, reference_batch = request.shape, self._reference_batch
        self._tuning.add_peak(shape, 0, self._device.allocated_bytes())
        peak = self._peak_of(lambda: _in_one_step(request, lambda short: self._model.rehearse(short, embeddings)))
        self._tuning.add_peak(shape, 1, peak or available + 1)
        if reference_batch and (self._tuning.of(shape).predicted_peak(reference_batch) or 0) <= available:
            peak = self._peak_of(lambda: _in_one_step(request, lambda short: self._model.render([short], [embeddings])))
            self._tuning.add_peak(shape, reference_batch, peak or available + 1)

    def _peak_of(self, render: Callable[[], object]) -> int | None:
        """Return the largest amount of memory in bytes allocated while rendering; None if there was not enough."""
        self._device.begin_peak()
        try:
            render()
        except torch.OutOfMemoryError:
            return None
        finally:
            self._device.release()
        return self._device.peak_bytes()


def _in_one_step(request: Request, render: Callable[[Request], object]) -> None:
    """Render a request in one step, which needs the same memory as many; in all of its steps if one is too few.

    A pipeline that begins with a picture leaves out a share of the steps (`strength`), and may have none left.
    """
    try:
        render(replace(request, num_inference_steps=1))
    except torch.OutOfMemoryError:
        raise
    except Exception:  # if the request itself is at fault, this raises again
        render(request)


def explain_weights() -> str:
    """Return why a model cannot be loaded on this device, and which setting could help."""
    available = DeviceMemory().available_bytes() or 0
    return (
        f"the model's weights do not fit into the {available / GIB:.1f} GiB of GPU memory that are "
        "available; offload: group keeps them in CPU memory"
    )


def _explain_reference(reference_batch: int, needed: int, available: int, peaks: Learned) -> str:
    """Return why strict mode cannot render on this device, and which settings could help.

    Args:
        needed: bytes.
        available: bytes.
        peaks: what is known of the shape.
    """
    weights = peaks.peak_bytes[0]
    fitting = int((available * (1 - MEMORY_MARGIN) - weights) / max(1, peaks.peak_bytes[1] - weights))
    others = [f"reference_batch: {fitting}"] if fitting else []
    others += ["vae_tiling: true", "reproducibility: fast"]
    return (
        f"the reference batch of {reference_batch} needs about {needed / GIB:.1f} GiB of GPU memory, "
        f"{weights / GIB:.1f} of it for weights, and {available / GIB:.1f} are available; "
        f"offload: model may fit and keeps the pixels; {' or '.join(others)} may fit and changes them"
    )
