"""What people write without rendermill, forty lines of Ray Data: `python -m benchmarks.plain_ray_data PROMPTS OUTPUT`.

No seeds of its own per item, no resume, no failures, no receipts: what benchmarks/million_rows.py compares with.
"""

import hashlib
import io
import sys
from typing import Any

import fsspec
import numpy as np
import ray
from PIL import Image
from ray.data import ActorPoolStrategy

Batch = dict[str, Any]


class Draw:
    """A model in an actor: a picture of one colour an item."""

    def __call__(self, batch: Batch) -> Batch:
        """Add pictures of 64 × 64 pixels."""
        colours = [hashlib.sha256(prompt.encode()).digest()[:3] for prompt in batch["prompt"]]
        batch["pixels"] = [np.full((64, 64, 3), list(colour), np.uint8) for colour in colours]
        return batch


def store(batch: Batch, output: str) -> Batch:
    """Write a PNG an item, and keep what a record says."""
    filesystem, root = fsspec.core.url_to_fs(output)
    filesystem.makedirs(f"{root}/media", exist_ok=True)
    hashes = []
    for item, pixels in zip(batch["id"], batch.pop("pixels"), strict=True):
        sink = io.BytesIO()
        Image.fromarray(pixels).save(sink, "PNG", compress_level=6)
        filesystem.pipe_file(f"{root}/media/{item}.png", sink.getvalue())
        hashes.append((hashlib.sha256(sink.getvalue()).hexdigest(), hashlib.sha256(pixels).hexdigest()))
    return batch | {"sha256": [file for file, _ in hashes], "pixel_sha256": [pixels for _, pixels in hashes]}


if __name__ == "__main__":
    prompts, output = sys.argv[1:]
    rows = ray.data.read_parquet(prompts)
    drawn = rows.map_batches(Draw, batch_size=1024, compute=ActorPoolStrategy(size=1), num_cpus=0.5)
    records = drawn.map_batches(store, fn_kwargs={"output": output}, batch_size=1024)
    records.write_parquet(f"{output}/metadata")
