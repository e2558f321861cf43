"""The metrics of a run for Prometheus. Ray's exporter puts `ray_` before each name, and `_total` after counters."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from ray.util.metrics import Counter, Gauge

FINISHED = Counter("rendermill_items_finished", "Items rendered, stored and committed.", ("model",))
FAILED = Counter("rendermill_items_failed", "Items that failed and are committed as failures.", ("model", "error_type"))
BACKLOG = Gauge("rendermill_items_to_do", "Items that are still to be rendered.", ("model",))
BATCH_SIZE = Gauge("rendermill_batch_size", "Items in the last batch that an actor rendered.", ("model",))
STAGE_SECONDS = Counter(
    "rendermill_stage_seconds",
    "Time spent in a stage: `encode` (prompts), `render` (denoising and decoding), `store` (media).",
    ("model", "stage"),
)
ACTOR_BUSY = Gauge(
    "rendermill_actor_busy_ratio",
    "Share of the time since its first chunk in which an actor was busy.",
    ("model",),
)
WRITTEN = Counter("rendermill_media_written_bytes", "Media files stored.", ("model",))

EXPORTED = {
    f"ray_{metric.info['name']}{'_total' if isinstance(metric, Counter) else ''}": metric
    for metric in (FINISHED, FAILED, BACKLOG, BATCH_SIZE, STAGE_SECONDS, ACTOR_BUSY, WRITTEN)
}
"""The metrics, by their names in Prometheus."""


@contextmanager
def timed(model: str, stage: str) -> Iterator[None]:
    """Add the time within this context to a stage's seconds."""
    start = perf_counter()
    try:
        yield
    finally:
        STAGE_SECONDS.inc(perf_counter() - start, {"model": model, "stage": stage})
