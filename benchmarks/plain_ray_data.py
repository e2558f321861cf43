"""Forty lines of Ray Data, as people write without rendermill; benchmarks/million_rows.py compares with them.

The same actor, encoder and files; but no checks of rows, no failures, no resume, and no waiting for the disk.

    python -m benchmarks.plain_ray_data PROMPTS CHECKPOINT OUTPUT
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

import fsspec
import ray
from ray.data import ActorPoolStrategy

from rendermill.actors.media.encoders import encode
from rendermill.actors.media.encoding import Encoding
from rendermill.manifests.identity import sample_seed
from rendermill.manifests.schema import RECORD_COLUMNS
from rendermill.models import registry
from rendermill.models.settings import Settings
from tests.support.requests import request_for

Batch = dict[str, Any]


class Render:
    """A model in an actor."""

    def __init__(self, checkpoint: str) -> None:
        settings = Settings(dtype={"default": "float32"}, compile=False, reference_batch=1)
        self._model = registry.load("BlankPipeline", Path(checkpoint), settings, "cpu")

    def __call__(self, batch: Batch) -> Batch:
        """Add pictures of 64 × 64 pixels."""
        batch["seed"] = [sample_seed(0, item, 0, None) for item in batch["id"]]
        requests = [
            request_for(prompt, seed, id=item, width=64, height=64, num_inference_steps=1, guidance_scale=1.0)
            for item, prompt, seed in zip(batch["id"], batch["prompt"], batch["seed"], strict=True)
        ]
        batch["frames"] = self._model.render(requests, self._model.encode(requests)).frames.numpy()
        return batch


def store(batch: Batch, output: str) -> Batch:
    """Write a PNG an item, and keep what a record says."""
    filesystem, root = fsspec.core.url_to_fs(output)
    filesystem.makedirs(f"{root}/media", exist_ok=True)
    unknown = dict.fromkeys(column.name for column in RECORD_COLUMNS)
    hashes = []
    for item, prompt, seed, frames in zip(
        batch["id"], batch["prompt"], batch["seed"].tolist(), batch.pop("frames"), strict=True
    ):
        record = unknown | {"id": item, "prompt": prompt, "seed": seed, "model": "blank", "checkpoint": "blank"}
        data = encode(frames, Encoding("png", has_provenance=True), record=record)
        filesystem.pipe_file(f"{root}/media/{item}.png", data)
        hashes.append((hashlib.sha256(data).hexdigest(), hashlib.sha256(frames).hexdigest()))
    return batch | {"sha256": [file for file, _ in hashes], "pixel_sha256": [pixels for _, pixels in hashes]}


if __name__ == "__main__":
    prompts, checkpoint, output = sys.argv[1:]
    rows = ray.data.read_parquet(prompts)
    rendered = rows.map_batches(
        Render, fn_constructor_args=(checkpoint,), batch_size=1024, compute=ActorPoolStrategy(size=1), num_cpus=0.5
    )
    records = rendered.map_batches(store, fn_kwargs={"output": output}, batch_size=1024)
    filesystem, root = fsspec.core.url_to_fs(output)  # Arrow's own client of S3 does not go with every server
    records.write_parquet(f"{root}/metadata", filesystem=filesystem)
