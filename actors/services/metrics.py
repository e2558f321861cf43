"""What a run tells Prometheus, through Ray's own exporter; it puts `ray_` before each name, `_total` after counters."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from ray.util.metrics import Counter, Gauge

FINISHED = Counter("rendermill_items_finished", "Items drawn, stored and committed.", ("model",))
FAILED = Counter("rendermill_items_failed", "Items that failed and are committed as failures.", ("model", "error_type"))
BACKLOG = Gauge("rendermill_items_to_do", "Items that are still to be drawn.", ("model",))
BATCH_SIZE = Gauge("rendermill_batch_size", "Items that an actor drew at once, the last time.", ("model",))
STAGE_SECONDS = Counter(
    "rendermill_stage_seconds",
    "Time spent in a stage: `encode` (prompts), `draw` (denoising and decoding), `store` (media).",
    ("model", "stage"),
)
ACTOR_BUSY = Gauge(
    "rendermill_actor_busy_ratio",
    "Share of the time since its first chunk that an actor was at work.",
    ("model",),
)
WRITTEN = Counter("rendermill_media_written_bytes", "Media files stored.", ("model",))

EXPORTED = {
    f"ray_{metric.info['name']}{'_total' if isinstance(metric, Counter) else ''}": metric
    for metric in (FINISHED, FAILED, BACKLOG, BATCH_SIZE, STAGE_SECONDS, ACTOR_BUSY, WRITTEN)
}
"""The metrics by the names that Prometheus sees."""


@contextmanager
def timed(model: str, stage: str) -> Iterator[None]:
    """Count the time within as that of a stage."""
    start = perf_counter()
    try:
        yield
    finally:
        STAGE_SECONDS.inc(perf_counter() - start, {"model": model, "stage": stage})
