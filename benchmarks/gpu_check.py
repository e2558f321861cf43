"""Runs rendermill on one GPU, with random weights in the shape of Sana 1.6B: `python -m benchmarks.gpu_check`.

Prints images a second beside the stock pipeline in a loop, whether pixels stayed the same across batch sizes and
orders, and what happens where memory is short. Random weights do for all of it: same shapes, same kernels. Takes about
twenty minutes and 12 GB of disk.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel
from transformers import Gemma2Config, Gemma2Model

from shapes.text import VOCABULARY_SIZE, make_tokenizer

ROOT = Path(__file__).parents[1]


def build_sana_1600m(folder: Path) -> None:
    """A pipeline in the shape of Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers, with a small vocabulary."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        transformer = SanaTransformer2DModel(
            in_channels=32,
            out_channels=32,
            num_attention_heads=70,
            attention_head_dim=32,
            num_layers=20,
            num_cross_attention_heads=20,
            cross_attention_head_dim=112,
            cross_attention_dim=2240,
            caption_channels=2304,
            sample_size=32,
            patch_size=1,
            mlp_ratio=2.5,
        )
        vae = AutoencoderDC(
            latent_channels=32,
            attention_head_dim=32,
            encoder_block_types=("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
            decoder_block_types=("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
            encoder_block_out_channels=(128, 256, 512, 512, 1024, 1024),
            decoder_block_out_channels=(128, 256, 512, 512, 1024, 1024),
            encoder_layers_per_block=(2, 2, 2, 3, 3, 3),
            decoder_layers_per_block=(3, 3, 3, 3, 3, 3),
            encoder_qkv_multiscales=((), (), (), (5,), (5,), (5,)),
            decoder_qkv_multiscales=((), (), (), (5,), (5,), (5,)),
            upsample_block_type="interpolate",
            downsample_block_type="Conv",
            scaling_factor=0.41407,
        )
        text_encoder = Gemma2Model(Gemma2Config(vocab_size=VOCABULARY_SIZE, pad_token_id=0, eos_token_id=2))
    torch.set_default_dtype(torch.float32)
    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    SanaPipeline(make_tokenizer(300), text_encoder, vae, transformer, scheduler).save_pretrained(folder)


@dataclass
class Drawn:
    """A run's records: pixel hashes by id, images a second after the first batch, and what renderers found."""

    status: int
    pixels: dict[str, str]
    rate: float
    found: dict[str, Any]


def run(folder: Path, name: str, rows: list[dict[str, Any]], **settings: Any) -> Drawn:
    """Draw rows with rendermill, into an output of its own."""
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    job = {
        "manifest": str(folder / f"{name}.parquet"),
        "output": str(folder / name),
        "profile": str(folder / "profile"),
        "reproducibility": settings.pop("reproducibility", "strict"),
        "models": {"sana": {"checkpoint": str(folder / "sana"), "pool": {"max_actors": 1}, **settings}},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(job))
    command = [sys.executable, "-m", "jobs.cli", "generate", str(folder / f"{name}.yaml")]
    status = subprocess.run(command, cwd=ROOT).returncode
    records = pq.read_table(folder / name / "metadata").to_pylist()
    starts = sorted({record["started_at"].timestamp() for record in records})
    # the first batch pays for compiling and warming up
    steady = [record for record in records if record["started_at"].timestamp() > starts[0]]
    end = max(
        (record["started_at"].timestamp() + record["seconds"] * record["batch_size"] for record in steady), default=0
    )
    rate = len(steady) / (end - starts[1]) if len(starts) > 1 else 0.0
    (run_file,) = (folder / name / "runs").glob("*.json")
    found = json.loads(run_file.read_text()).get("found", {}).get("models", {}).get("sana", {})
    print(f"  {name}: {rate:.2f} img/s, exit status {status}, {json.dumps(found)}", flush=True)
    return Drawn(status, {record["id"]: record["pixel_sha256"] for record in records}, rate, found)


def bare_loop(folder: Path, compiled: bool, batch: int, num_batches: int = 4) -> float:
    """Images a second of the stock pipeline in a loop, from prompts to uint8 arrays, after a batch to warm up."""
    pipeline = SanaPipeline.from_pretrained(folder / "sana", dtype=torch.bfloat16).to("cuda")
    pipeline.set_progress_bar_config(disable=True)
    if compiled:
        for block in pipeline.transformer.transformer_blocks:
            block.compile(dynamic=False)
    for number in range(num_batches + 1):
        if number == 1:
            torch.cuda.synchronize()
            started = time.perf_counter()
        generators = [torch.Generator().manual_seed(number * batch + index) for index in range(batch)]
        prompts = [f"prompt {number * batch + index}" for index in range(batch)]
        pipeline(prompts, generator=generators, use_resolution_binning=False, output_type="np")
    rate = num_batches * batch / (time.perf_counter() - started)
    print(f"  bare loop, {'compiled' if compiled else 'eager'}, batch {batch}: {rate:.2f} img/s", flush=True)
    del pipeline
    torch.compiler.reset()
    torch.cuda.empty_cache()
    return rate


@contextmanager
def taken(num_bytes_left: int) -> Iterator[None]:
    """Another process that takes the GPU's memory but for so many bytes."""
    code = (
        "import sys, torch; free, _ = torch.cuda.mem_get_info(); "
        "taken = torch.empty(free - int(sys.argv[1]), dtype=torch.uint8, device='cuda'); print('taken', flush=True); "
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(num_bytes_left)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "taken\n"
    try:
        yield
    finally:
        process.kill()
        process.wait()


def same(one: Drawn, other: Drawn) -> str:
    """How many of the second run's items have the first's pixels."""
    num_same = sum(one.pixels.get(item) == pixels for item, pixels in other.pixels.items())
    return f"{num_same} of {len(other.pixels)} the same pixels"


def check_speed(folder: Path, rows: list[dict[str, Any]], compiled: bool) -> None:
    """Strict and fast, at sizes found by themselves, beside the bare loop; and strict at other sizes and orders."""
    best = max(bare_loop(folder, compiled, batch) for batch in (4, 8, 16))
    name = "compiled" if compiled else "eager"
    strict = run(folder, f"strict-{name}", rows, compile=compiled)
    warm = run(folder, f"strict-{name}-warm", rows, compile=compiled)
    print(f"strict, {name}: {warm.rate / best:.1%} of the bare loop; second run: {same(strict, warm)}")
    shuffled = random.Random(0).sample(rows, len(rows) // 2)
    other = run(folder, f"strict-{name}-other", shuffled, compile=compiled, batch=16)
    print(f"strict, {name}, batch 16, half of the rows, shuffled: {same(strict, other)}")
    run(folder, f"fast-{name}", rows, compile=compiled, reproducibility="fast")
    fast = run(folder, f"fast-{name}-warm", rows, compile=compiled, reproducibility="fast")
    print(f"fast, {name}: {fast.rate / best:.1%} of the bare loop")


def check_memory(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Most of the memory taken by another process."""
    for gib in (24, 16, 12):
        with taken(gib * 2**30):
            fast = run(folder, f"fast-{gib}", rows, compile=False, reproducibility="fast", batch=16)
            strict = run(folder, f"strict-{gib}", rows, compile=False, reference_batch=8)
        print(
            f"{gib} GiB left: fast {len(fast.pixels)} of {len(rows)}, strict {len(strict.pixels)} of {len(rows)} drawn"
        )


def main() -> None:
    """Print a table of settings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "checks", nargs="*", choices=["eager", "compiled", "memory"], default=["eager", "compiled", "memory"]
    )
    parser.add_argument("--num-images", type=int, default=128)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_sana_1600m(folder / "sana")
        torch.cuda.empty_cache()
        rows = [{"id": str(index), "prompt": f"prompt {index}"} for index in range(given.num_images)]
        print(f"on {torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
        for check in given.checks:
            if check == "memory":
                check_memory(folder, rows[:32])
            else:
                check_speed(folder, rows, compiled=check == "compiled")


if __name__ == "__main__":
    main()
