"""What drawing will take, from what earlier runs learned: pure arithmetic over counts by shape."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from rendermill.actors.engine.tuning.profile import Profile
from rendermill.manifests.schema import Shape


@dataclass(frozen=True)
class ShapeEstimate:
    """The estimate for the samples of one shape.

    Attributes:
        seconds_per_item: of one actor; None: nothing of the model is known.
        is_measured: this very shape was drawn before; else its pace is that of the nearest shape, by the work it takes.
        batch_size: items that were drawn at once; None: not known.
        bytes_per_item: None: not known.
    """

    seconds_per_item: float | None
    is_measured: bool
    batch_size: int | None
    bytes_per_item: float | None


def estimate_shape(shape: Shape, profile: Profile) -> ShapeEstimate:
    """What an item of a shape takes, from what is known of its model."""
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
    """The pace of a shape that was drawn, else that of its batches alone."""
    if name in profile.seconds_per_item:
        return profile.seconds_per_item[name]
    learned = profile.shapes[name]
    measured = learned.seconds_per_item.get(learned.size) or [
        seconds for sizes in learned.seconds_per_item.values() for seconds in sizes
    ]
    return min(measured, default=None)


def _bytes_per_item(shape: Shape, file_sizes: Mapping[Shape, float]) -> float | None:
    """The size of a file, by the nearest shape in pixels."""
    if not file_sizes:
        return None
    nearest = min(file_sizes, key=lambda other: abs(math.log(other.num_pixels / shape.num_pixels)))
    return file_sizes[nearest] * shape.num_pixels / nearest.num_pixels


@dataclass(frozen=True)
class ModelWork:
    """What one model has before it.

    Attributes:
        seconds: that its items take one actor.
        start_up_seconds: until its items go at their pace.
        num_actors: as many as it may have.
        num_gpus: per actor.
        num_cpus: per actor.
    """

    seconds: float
    start_up_seconds: float
    num_actors: int
    num_gpus: float
    num_cpus: float

    @property
    def device(self) -> str:
        """What its actors draw on: `GPU` or `CPU`."""
        return "GPU" if self.num_gpus else "CPU"

    @property
    def num_devices(self) -> float:
        """The devices that an actor takes: on a CPU a core at least, however little of one its pool reserves."""
        return self.num_gpus or max(1.0, self.num_cpus)

    @property
    def device_seconds(self) -> float:
        """The time of all actors together, while they draw."""
        return self.seconds * self.num_devices


def seconds_of_job(work: Collection[ModelWork], resources: Mapping[str, float]) -> float:
    """How long drawing takes, all models at once.

    Args:
        resources: the cluster's, by name.
    """
    alone = max((model.start_up_seconds + model.seconds / model.num_actors for model in work), default=0.0)
    shared = [
        sum(model.device_seconds for model in work if model.device == device) / resources[device]
        for device in {model.device for model in work}
    ]
    return max(alone, *shared) if shared else alone


def padding(num_items: int, reference_batch: int | None) -> float:
    """The share of a denoiser's slots that padding takes where so many items are drawn in whole reference batches."""
    if reference_batch is None or not num_items:
        return 0.0
    num_slots = math.ceil(num_items / reference_batch) * reference_batch
    return 1 - num_items / num_slots
