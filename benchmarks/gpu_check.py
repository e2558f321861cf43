"""Runs rendermill on one GPU, in the shapes of Sana 1.6B and Wan 2.2 A14B: `python -m benchmarks.gpu_check`.

Prints items a second beside the stock pipeline in a loop, whether pixels stayed the same across batch sizes and
orders, and what happens where memory is short. Random weights do for all of it: same shapes, same kernels. Takes about
half an hour and 40 GB of disk.
"""

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from diffusers import SanaPipeline

from benchmarks.full_size import build_sana_1600m, build_wan_a14b, with_two_experts
from benchmarks.speedups import requests_of
from rendermill.actors.environment import make_deterministic
from rendermill.models import registry
from rendermill.models.settings import Settings

ROOT = Path(__file__).parents[1]


@dataclass
class RunResult:
    """A run's records.

    Attributes:
        pixels: pixel hashes by id.
        rate: items a second in the second half, after compiling, warming up and finding a size.
        seconds_to_first: from the command's start to the end of its first batch.
    """

    status: int
    pixels: dict[str, str]
    rate: float
    seconds_to_first: float


def run(
    name: str,
    checkpoint: Path,
    rows: list[dict[str, Any]],
    environment: Mapping[str, str] | None = None,
    models: Sequence[str] = ("model",),
    **settings: Any,
) -> RunResult:
    """Render rows with rendermill, into an output of its own; each model takes its share of the GPU."""
    folder, pool = checkpoint.parent, {"max_actors": 1, "num_gpus": 1 / len(models)}
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    job = {
        "manifest": str(folder / f"{name}.parquet"),
        "output": str(folder / name),
        "profile": str(folder / "profile"),
        "reproducibility": settings.pop("reproducibility", "strict"),
        "default_model": models[0],
        "models": {model: {"checkpoint": str(checkpoint), "pool": pool, **settings} for model in models},
    }
    (folder / f"{name}.yaml").write_text(json.dumps(job))
    command = [sys.executable, "-m", "rendermill", "generate", str(folder / f"{name}.yaml")]
    started = datetime.now(UTC)
    status = subprocess.run(command, cwd=ROOT, env={**os.environ, **(environment or {})}).returncode
    records = sorted(pq.read_table(folder / name / "metadata").to_pylist(), key=lambda record: record["started_at"])
    rate = busy = seconds_to_first = 0.0
    if records:
        first = records[0]
        seconds_to_first = (first["started_at"] - started).total_seconds() + first["seconds"] * first["batch_size"]
        start = records[len(records) // 2]["started_at"]
        steady = [record for record in records if record["started_at"] >= start]
        last = steady[-1]
        span = (last["started_at"] - start).total_seconds() + last["seconds"] * last["batch_size"]
        rate, busy = len(steady) / span, sum(record["seconds"] for record in steady) / span
    sizes = " ".join(str(record["batch_size"]) for record in _first_of_batches(records))
    (run_file,) = (folder / name / "runs").glob("*.json")
    found = json.loads(run_file.read_text()).get("found", {}).get("models", {})
    print(
        f"  {name}: first batch after {seconds_to_first:.0f} s, {rate:.3f} items/s, {busy:.1%} of it in batches, "
        f"sizes {sizes}, exit status {status}, {json.dumps(found)}",
        flush=True,
    )
    return RunResult(status, {record["id"]: record["pixel_sha256"] for record in records}, rate, seconds_to_first)


def _first_of_batches(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({record["started_at"]: record for record in records}.values())


def bare_loop(checkpoint: Path, compiled: bool, batch: int, num_batches: int = 3) -> float:
    """Images a second of the stock pipeline in a loop, from prompts to uint8 arrays, after a batch to warm up."""
    pipeline = SanaPipeline.from_pretrained(checkpoint, dtype=torch.bfloat16).to("cuda")
    pipeline.set_progress_bar_config(disable=True)
    if compiled:
        pipeline.vae.decoder.compile(dynamic=False)
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
    print(f"  bare loop, {'compiled' if compiled else 'eager'}, batch {batch}: {rate:.3f} items/s", flush=True)
    del pipeline
    torch.compiler.reset()
    torch.cuda.empty_cache()
    return rate


@contextmanager
def taken(num_bytes_left: int) -> Iterator[None]:
    """Run another process that takes all of the GPU's memory but N bytes."""
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


def same(one: RunResult, other: RunResult) -> str:
    """Describe how many of the second run's items have the first's pixels."""
    num_same = sum(one.pixels.get(item) == pixels for item, pixels in other.pixels.items())
    return f"{num_same} of {len(other.pixels)} the same pixels"


def check_speed(checkpoint: Path, rows: list[dict[str, Any]], compiled: bool) -> None:
    """Strict and fast, at sizes found by themselves, beside the bare loop; and strict at another size and order."""
    rates = {batch: bare_loop(checkpoint, compiled, batch) for batch in (8, 16)}
    best = max(rates.values())
    name = "compiled" if compiled else "eager"
    strict = run(f"strict-{name}", checkpoint, rows, compile=compiled)
    warm = run(f"strict-{name}-warm", checkpoint, rows, compile=compiled)
    shuffled = random.Random(0).sample(rows, len(rows) // 2)
    other = run(f"strict-{name}-16-shuffled", checkpoint, shuffled, compile=compiled, batch=16)
    fast = run(f"fast-{name}", checkpoint, rows, compile=compiled, reproducibility="fast")
    print(
        *(f"bare loop, {name}, batch {batch}: {rate:.2f} img/s" for batch, rate in rates.items()),
        f"strict, {name}: {strict.rate:.2f} img/s, {strict.rate / best:.1%} of the best bare loop",
        f"strict, {name}, second run: {warm.rate:.2f} img/s, {warm.rate / best:.1%}, {same(strict, warm)}",
        f"strict, {name}, batch 16, half of the rows, shuffled: {same(strict, other)}",
        f"fast, {name}: {fast.rate:.2f} img/s, {fast.rate / best:.1%}",
        sep="\n",
        flush=True,
    )


def compiling_in(checkpoint: Path, name: str) -> dict[str, str]:
    """The environment of a node that compiles into a folder of this name; a new name is a new node."""
    return {"TORCHINDUCTOR_CACHE_DIR": str(checkpoint.parent / name)}


def check_throughput(checkpoint: Path, rows: list[dict[str, Any]]) -> None:
    """From Parquet to PNGs and records, compiled, beside the bare loop."""
    best = bare_loop(checkpoint, compiled=True, batch=16, num_batches=4)
    rendered = run("throughput", checkpoint, rows, compiling_in(checkpoint, "one-node"))
    print(
        f"bare loop, compiled, batch 16: {best:.2f} img/s",
        f"{len(rendered.pixels)} images from Parquet to PNGs: {rendered.rate:.2f} img/s, {rendered.rate / best:.1%}",
        sep="\n",
        flush=True,
    )


def check_kernel_time(checkpoint: Path, rows: list[dict[str, Any]]) -> None:
    """How much of the time between first and last batch a kernel runs, by the profiler, which slows the end."""
    rows = rows[:256]
    result, num_batches = checkpoint.parent / "kernel-time.json", len(rows) // 8 - 4
    measured = {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "benchmarks" / "kernel_time"), os.environ.get("PYTHONPATH", "")]),
        "KERNEL_TIME_FILE": str(result),
        "KERNEL_TIME_FIRST": "3",
        "KERNEL_TIME_BATCHES": str(num_batches),
    }
    run("kernel-time", checkpoint, rows, measured | compiling_in(checkpoint, "one-node"), batch=8)
    found = result.read_text() if result.exists() else "nothing was measured"
    print(f"within {num_batches} batches of 8: {found}", flush=True)


def check_cold_start(checkpoint: Path, rows: list[dict[str, Any]]) -> None:
    """How long until the first batch: with nothing compiled, on another node, and again on the first."""
    nodes = {"cold": "one-node", "elsewhere": "another-node", "warm": "one-node"}
    rendered = {name: run(name, checkpoint, rows[:16], compiling_in(checkpoint, node)) for name, node in nodes.items()}
    print(
        f"first batch: {rendered['cold'].seconds_to_first:.0f} s after the start; "
        f"{rendered['elsewhere'].seconds_to_first:.0f} s on another node with what the first compiled, "
        f"{same(rendered['cold'], rendered['elsewhere'])}; "
        f"{rendered['warm'].seconds_to_first:.0f} s at the next run",
        flush=True,
    )


def check_fastest(checkpoint: Path, rows: list[dict[str, Any]]) -> None:
    """From Parquet to PNGs and records, with every speedup that keeps what the prompt says."""
    speedups: dict[str, Any] = {"quantization": "float8", "float32_matmul_precision": "high"}
    for more in ({"guidance_interval": [0.0, 0.6]}, {"cache_interval": 2}):
        speedups |= more
        fastest = run(f"fastest-{len(speedups)}", checkpoint, rows, speedups=speedups)
        print(f"{len(fastest.pixels)} images, {json.dumps(speedups)}: {fastest.rate:.2f} img/s", flush=True)


def check_shared(checkpoint: Path, rows: list[dict[str, Any]]) -> None:
    """Two models on one GPU, with hardly more memory than both need."""
    rows = rows[:96]
    halves = [row | {"model": "even" if number % 2 == 0 else "odd"} for number, row in enumerate(rows)]
    with taken(48 * 2**30):
        shared = run("shared", checkpoint, halves, models=("even", "odd"), compile=False, reference_batch=8)
    print(
        f"two models on one GPU, 48 GiB left: {len(shared.pixels)} of {len(rows)}, {shared.rate:.2f} img/s", flush=True
    )


def check_memory(checkpoint: Path, rows: list[dict[str, Any]]) -> None:
    """Most of the memory taken by another process: strict mode holds its reference or refuses, fast always finishes."""
    rows = rows[:32]
    for gib in (24, 16):
        with taken(gib * 2**30):
            strict = run(f"strict-{gib}", checkpoint, rows, compile=False, reference_batch=8)
        print(f"{gib} GiB left: strict {len(strict.pixels)} of {len(rows)} rendered", flush=True)
    with taken(16 * 2**30):
        fast = run("fast-16", checkpoint, rows, compile=False, reproducibility="fast", batch=16)
    print(f"16 GiB left: fast {len(fast.pixels)} of {len(rows)} rendered", flush=True)


def check_weights(checkpoint: Path, rows: list[dict[str, Any]]) -> None:
    """Less memory than the weights take: one line says so, and `offload: group` renders."""
    rows = rows[:4]
    with taken(6 * 2**30):
        refused = run("refused", checkpoint, rows, compile=False)
        streamed = run("streamed", checkpoint, rows, compile=False, offload="group")
    print(f"6 GiB left: {len(refused.pixels)} of 4 rendered, {len(streamed.pixels)} with offload: group", flush=True)


def check_wan(checkpoint: Path) -> None:
    """Clips of 81 frames, 832 × 480, two steps: how many at once pay."""
    rows = [{"id": str(index), "prompt": f"prompt {index}"} for index in range(4)]
    rendered = run("wan", checkpoint, rows, defaults={"num_inference_steps": 2}, compile=False)
    print(f"Wan, strict, batch auto: {rendered.rate:.3f} clips/s", flush=True)


def check_wan_strict(checkpoint: Path) -> None:
    """Two such clips, together and alone, in one process."""
    settings = Settings(dtype={"default": "bfloat16"}, compile=False, reference_batch=1)
    model = registry.load("WanPipeline", checkpoint, settings, make_deterministic(compiled=False))
    clip = {"width": 832, "height": 480, "num_frames": 81, "fps": 16.0, "num_inference_steps": 2, "guidance_scale": 5.0}
    requests = requests_of(["prompt 0", "prompt 1"], **clip)
    together = model.render(requests, model.encode(requests)).frames
    alone = torch.cat([model.render([request], model.encode([request])).frames for request in requests])
    num_same = sum(torch.equal(*pair) for pair in zip(together, alone, strict=True))
    sizes = {name: dict(batches.sizes) for name, batches in model.stages.items()}
    print(f"Wan, strict: {num_same} of 2 clips the same together and alone; sizes {json.dumps(sizes)}", flush=True)


def check_wan_experts(checkpoint: Path) -> None:
    """Two experts, both on the GPU or one in turn: clips of 33 frames, four steps, half of them of each expert."""
    clip = {"width": 832, "height": 480, "num_frames": 33, "fps": 16.0, "num_inference_steps": 4, "guidance_scale": 5.0}
    requests = requests_of([f"prompt {number}" for number in range(4)], **clip)
    two_experts = checkpoint.with_name("wan-two-experts")
    with_two_experts(checkpoint, two_experts)
    kept: torch.Tensor | None = None
    for offload, num_together in {"none": 1, "model": 4, "group": 1}.items():  # what `group` pins is given back late
        settings = Settings(dtype={"default": "bfloat16"}, compile=False, reference_batch=1, offload=offload)
        model = registry.load("WanPipeline", two_experts, settings, make_deterministic(compiled=False))
        embeddings = model.encode(requests)
        torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        model.render(requests[:1], embeddings[:1]).frames.cpu()
        alone = time.perf_counter() - began
        began = time.perf_counter()
        frames = torch.cat(
            [
                model.render(requests[start : start + num_together], embeddings[start : start + num_together]).frames
                for start in range(0, len(requests), num_together)
            ]
        ).cpu()
        seconds, gib = (time.perf_counter() - began) / len(requests), torch.cuda.max_memory_allocated() / 2**30
        kept = frames if kept is None else kept
        num_same = sum(torch.equal(*pair) for pair in zip(frames, kept, strict=True))
        print(
            f"offload: {offload}: a clip alone {alone:.1f} s, one of four {seconds:.1f} s, {gib:.1f} GiB, "
            f"{num_same} of 4 the same pixels",
            flush=True,
        )
        del model, embeddings  # which refer to themselves
        gc.collect()
        torch.cuda.empty_cache()


_SANA_CHECKS: dict[str, Callable[[Path, list[dict[str, Any]]], None]] = {
    "eager": partial(check_speed, compiled=False),
    "compiled": partial(check_speed, compiled=True),
    "throughput": check_throughput,
    "kernel-time": check_kernel_time,
    "cold-start": check_cold_start,
    "fastest": check_fastest,
    "memory": check_memory,
    "weights": check_weights,
    "shared": check_shared,
}
_WAN_CHECKS = {"wan": check_wan, "wan-strict": check_wan_strict, "wan-experts": check_wan_experts}


def main() -> None:
    """Run the checks that were asked for, else all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    checks = [*_SANA_CHECKS, *_WAN_CHECKS]
    parser.add_argument("checks", nargs="*", choices=checks, default=checks)
    parser.add_argument("--num-images", type=int, default=128)
    given = parser.parse_args()
    print(f"on {torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
    rows = [{"id": str(index), "prompt": f"prompt {index}"} for index in range(given.num_images)]
    with tempfile.TemporaryDirectory() as name:
        sana, wan = Path(name) / "sana", Path(name) / "wan"
        if _SANA_CHECKS.keys() & set(given.checks):
            build_sana_1600m(sana)
        if _WAN_CHECKS.keys() & set(given.checks):
            build_wan_a14b(wan)
        torch.cuda.empty_cache()
        for check in given.checks:
            if check in _SANA_CHECKS:
                _SANA_CHECKS[check](sana, rows)
            else:
                _WAN_CHECKS[check](wan)


if __name__ == "__main__":
    main()
