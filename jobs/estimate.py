"""What drawing will take, from what earlier runs learned: pure arithmetic over counts by shape."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from actors.profile import Profile
from manifests.schema import Shape


@dataclass(frozen=True)
class ShapeEstimate:
    """Of the samples of one shape.

    Attributes:
        seconds_per_item: of one actor.
        is_measured: this very shape was drawn before; else its pace is that of the nearest shape, by the work it takes.
        batch_size: items that were drawn at once; None: not known.
        bytes_per_item: None: not known.
    """

    seconds_per_item: float
    is_measured: bool
    batch_size: int | None
    bytes_per_item: float | None


def estimate_shape(shape: Shape, profile: Profile) -> ShapeEstimate | None:
    """What an item of a shape takes; None where nothing of the model is known."""
    known = {Shape.parse(name): pace for name in profile.shapes if (pace := _seconds_per_item(name, profile))}
    if not known:
        return None
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
    """By the nearest shape in pixels."""
    if not file_sizes:
        return None
    nearest = min(file_sizes, key=lambda other: abs(math.log(other.num_pixels / shape.num_pixels)))
    return file_sizes[nearest] * shape.num_pixels / nearest.num_pixels


def seconds_of_job(work: Mapping[str, tuple[float, int, float]], num_devices: float) -> float:
    """How long drawing takes, all models at once.

    Args:
        work: by model: seconds that its items take one actor, start-up included; the actors that it may have; devices
            (GPUs, else CPUs) that an actor takes.
        num_devices: that the cluster has for all of them.
    """
    longest = max((seconds / num_actors for seconds, num_actors, _ in work.values()), default=0.0)
    device_seconds = sum(seconds * per_actor for seconds, _, per_actor in work.values())
    return max(longest, device_seconds / num_devices if num_devices else 0.0)


def padding(num_items: int, reference_batch: int | None) -> float:
    """The share of a denoiser's slots that padding takes where so many items are drawn in whole reference batches."""
    if reference_batch is None or not num_items:
        return 0.0
    num_slots = math.ceil(num_items / reference_batch) * reference_batch
    return 1 - num_items / num_slots
