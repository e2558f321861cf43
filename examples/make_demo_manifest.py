"""Picks the demo's prompts: `python examples/make_demo_manifest.py PARTIPROMPTS.parquet VBENCH.parquet`.

Every 25th of PartiPrompts and every 78th of VBench, so that all their categories are there.
"""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

NUM_IMAGES, NUM_VIDEOS = 64, 12


def main(images_path: str, videos_path: str) -> None:
    """Write examples/demo.parquet."""
    images, videos = pq.read_table(images_path).to_pylist(), pq.read_table(videos_path).to_pylist()
    rows = [
        {"id": f"parti-{index:04d}", "model": "sana", **images[index]}
        for index in range(0, len(images), len(images) // NUM_IMAGES)[:NUM_IMAGES]
    ]
    rows += [
        {"id": f"vbench-{index:04d}", "model": "wan", "prompt": videos[index]["prompt"]}
        for index in range(0, len(videos), len(videos) // NUM_VIDEOS)[:NUM_VIDEOS]
    ]
    names = ("id", "model", "prompt", "category", "challenge")
    table = pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in names]))
    pq.write_table(table, Path(__file__).with_name("demo.parquet"), compression="zstd")


if __name__ == "__main__":
    main(*sys.argv[1:])
