"""Picks the demo's prompts: `python -m examples.make_demo_manifest PARTIPROMPTS.parquet VBENCH.parquet`.

One half are captions of shapes, of combinations that the checkpoints never met in training. The other half are every
51st of PartiPrompts and every 157th of VBench, so that all their categories are there.
"""

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shapes.scenes import caption, held_out_scenes, random_clip, random_picture

NUM_IMAGES, NUM_VIDEOS = 32, 6
"""Of each half."""


def spread(rows: list[dict[str, Any]], num_rows: int) -> list[tuple[int, dict[str, Any]]]:
    """Rows at even distances, with their indices."""
    return list(enumerate(rows))[:: len(rows) // num_rows][:num_rows]


def main(images_path: str, videos_path: str) -> None:
    """Write examples/demo.parquet."""
    images, videos = pq.read_table(images_path).to_pylist(), pq.read_table(videos_path).to_pylist()
    rows: list[dict[str, Any]] = []
    for model, make, num_scenes in (("sana", random_picture, NUM_IMAGES), ("wan", random_clip, NUM_VIDEOS)):
        prompts = [caption(scene) for scene in held_out_scenes(make, num_scenes)]
        rows += [
            {"id": f"shapes-{model}-{index:02d}", "model": model, "prompt": prompt, "category": "Shapes"}
            for index, prompt in enumerate(prompts)
        ]
    rows += [{"id": f"parti-{index:04d}", "model": "sana", **row} for index, row in spread(images, NUM_IMAGES)]
    rows += [
        {"id": f"vbench-{index:04d}", "model": "wan", "prompt": row["prompt"]}
        for index, row in spread(videos, NUM_VIDEOS)
    ]
    names = ("id", "model", "prompt", "category", "challenge")
    table = pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in names]))
    pq.write_table(table, Path(__file__).with_name("demo.parquet"), compression="zstd")


if __name__ == "__main__":
    main(*sys.argv[1:])
