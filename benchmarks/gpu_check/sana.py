"""Checks in the shape of Sana 1.6B: speed beside the stock pipeline, equal pixels, and too little memory."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import SanaPipeline

from benchmarks.gpu_check.runs import ROOT, run, same


def bare_loop(checkpoint: Path, compiled: bool, batch: int, num_batches: int = 3) -> float:
    """Return the images a second of the stock pipeline in a loop, from prompts to uint8 arrays, without the first."""
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


def check_speed(checkpoint: Path, rows: list[dict[str, Any]], compiled: bool) -> None:
    """Render in strict and fast mode beside the bare loop, and in strict mode with another size and order, too."""
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
    """Return the environment of a node that compiles into a folder of this name; a new name is a new node."""
    return {"TORCHINDUCTOR_CACHE_DIR": str(checkpoint.parent / name)}


def check_throughput(checkpoint: Path, rows: list[dict[str, Any]]) -> None:
    """Measure the rate from Parquet to PNGs and records, compiled, beside the bare loop."""
    best = bare_loop(checkpoint, compiled=True, batch=16, num_batches=4)
    rendered = run("throughput", checkpoint, rows, compiling_in(checkpoint, "one-node"))
    print(
        f"bare loop, compiled, batch 16: {best:.2f} img/s",
        f"{len(rendered.pixels)} images from Parquet to PNGs: {rendered.rate:.2f} img/s, {rendered.rate / best:.1%}",
        sep="\n",
        flush=True,
    )


def check_kernel_time(checkpoint: Path, rows: list[dict[str, Any]]) -> None:
    """Measure the share of the time between first and last batch in which a kernel runs; the profiler slows the end."""
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
    """Measure the time until the first batch with nothing compiled, on another node, and again on the first node."""
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
    """Measure the rate from Parquet to PNGs and records with every speedup that keeps what the prompt says."""
    speedups: dict[str, Any] = {"quantization": "float8", "float32_matmul_precision": "high"}
    for more in ({"guidance_interval": [0.0, 0.6]}, {"cache_interval": 2}):
        speedups |= more
        fastest = run(f"fastest-{len(speedups)}", checkpoint, rows, speedups=speedups)
        print(f"{len(fastest.pixels)} images, {json.dumps(speedups)}: {fastest.rate:.2f} img/s", flush=True)


def check_shared(checkpoint: Path, rows: list[dict[str, Any]]) -> None:
    """Render with two models on one GPU that has hardly more memory than both need."""
    rows = rows[:96]
    halves = [row | {"model": "even" if number % 2 == 0 else "odd"} for number, row in enumerate(rows)]
    with taken(48 * 2**30):
        shared = run("shared", checkpoint, halves, models=("even", "odd"), compile=False, reference_batch=8)
    print(
        f"two models on one GPU, 48 GiB left: {len(shared.pixels)} of {len(rows)}, {shared.rate:.2f} img/s", flush=True
    )


def check_memory(checkpoint: Path, rows: list[dict[str, Any]]) -> None:
    """Render while another process has most of the memory: strict mode keeps its reference or refuses."""
    rows = rows[:32]
    for gib in (24, 16):
        with taken(gib * 2**30):
            strict = run(f"strict-{gib}", checkpoint, rows, compile=False, reference_batch=8)
        print(f"{gib} GiB left: strict {len(strict.pixels)} of {len(rows)} rendered", flush=True)
    with taken(16 * 2**30):
        fast = run("fast-16", checkpoint, rows, compile=False, reproducibility="fast", batch=16)
    print(f"16 GiB left: fast {len(fast.pixels)} of {len(rows)} rendered", flush=True)


def check_weights(checkpoint: Path, rows: list[dict[str, Any]]) -> None:
    """Render with less memory than the weights take: one line says so, and `offload: group` renders."""
    rows = rows[:4]
    with taken(6 * 2**30):
        refused = run("refused", checkpoint, rows, compile=False)
        streamed = run("streamed", checkpoint, rows, compile=False, offload="group")
    print(f"6 GiB left: {len(refused.pixels)} of 4 rendered, {len(streamed.pixels)} with offload: group", flush=True)


SANA_CHECKS: dict[str, Callable[[Path, list[dict[str, Any]]], None]] = {
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
