"""Estimate how long rendering takes from what earlier runs measured: pure arithmetic over counts by shape."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from rendermill.actors.engine.tuning.profile import Profile
from rendermill.manifests.request import Shape


@dataclass(frozen=True)
class ShapeEstimate:
    """The estimate for the samples of one shape.

    Attributes:
        seconds_per_item: The time of one actor; None: nothing about the model is known.
        is_measured: Whether this very shape was rendered before; if not, the time is that of the shape with the nearest
            amount of work, in proportion to its work.
        batch_size: The number of items that were rendered together; None: not known.
        bytes_per_item: The size of a file; None: not known.
    """

    seconds_per_item: float | None
    is_measured: bool
    batch_size: int | None
    bytes_per_item: float | None


def estimate_shape(shape: Shape, profile: Profile) -> ShapeEstimate:
    """Estimate what an item of a shape takes from the tuning profile of its model."""
    known = {Shape.parse(name): pace for name in profile.shapes if (pace := _seconds_per_item(name, profile))}
    if not known:
        return ShapeEstimate(None, is_measured=False, batch_size=None, bytes_per_item=None)
    nearest = min(known, key=lambda other: abs(math.log(other.work / shape.work)))
    learned = profile.shapes.get(str(shape))
    file_sizes = {Shape.parse(name): size for name, size in profile.bytes_per_item.items()}
    return ShapeEstimate(
        seconds_per_item=known[nearest] * shape.work / nearest.work,
        is_measured=nearest == shape,
        batch_size=learned.size if learned else None,
        bytes_per_item=_bytes_per_item(shape, file_sizes),
    )


def _seconds_per_item(name: str, profile: Profile) -> float | None:
    """Return the measured time of an item of a shape: that of whole runs, or else that of its batches alone."""
    if name in profile.seconds_per_item:
        return profile.seconds_per_item[name]
    learned = profile.shapes[name]
    measured = learned.seconds_per_item.get(learned.size) or [
        seconds for sizes in learned.seconds_per_item.values() for seconds in sizes
    ]
    return min(measured, default=None)


def _bytes_per_item(shape: Shape, file_sizes: Mapping[Shape, float]) -> float | None:
    """Estimate the size of a file from that of the shape with the nearest number of pixels."""
    if not file_sizes:
        return None
    nearest = min(file_sizes, key=lambda other: abs(math.log(other.num_pixels / shape.num_pixels)))
    return file_sizes[nearest] * shape.num_pixels / nearest.num_pixels


@dataclass(frozen=True)
class ModelWork:
    """The work of one model.

    Attributes:
        seconds: The time that its items take one actor.
        start_up_seconds: The time until its first items are done.
        num_actors: The largest number of actors that it may have.
        num_gpus: The GPUs of each actor.
        num_cpus: The CPUs of each actor.
    """

    seconds: float
    start_up_seconds: float
    num_actors: int
    num_gpus: float
    num_cpus: float

    @property
    def device(self) -> str:
        """The kind of device that its actors render on: `GPU` or `CPU`."""
        return "GPU" if self.num_gpus else "CPU"

    @property
    def num_devices(self) -> float:
        """The number of devices that an actor takes; on CPUs at least one core, even if its pool reserves less."""
        return self.num_gpus or max(1.0, self.num_cpus)

    @property
    def device_seconds(self) -> float:
        """The time of all its actors together while they render."""
        return self.seconds * self.num_devices


def seconds_of_job(work: Collection[ModelWork], resources: Mapping[str, float]) -> float:
    """Estimate how long rendering takes if all models render at the same time.

    Args:
        resources: The number of CPUs and GPUs of the cluster, by name.
    """
    alone = max((model.start_up_seconds + model.seconds / model.num_actors for model in work), default=0.0)
    shared = [
        sum(model.device_seconds for model in work if model.device == device) / resources[device]
        for device in {model.device for model in work}
    ]
    return max(alone, *shared) if shared else alone


def padding(num_items: int, reference_batch: int | None) -> float:
    """Return the share of a denoiser's slots that is padding if N items are rendered in whole reference batches."""
    if reference_batch is None or not num_items:
        return 0.0
    num_slots = math.ceil(num_items / reference_batch) * reference_batch
    return 1 - num_items / num_slots
