"""Checks in the shape of Wan 2.2 A14B: batches of clips, and two experts that share a GPU."""

import gc
import json
import time
from pathlib import Path

import torch

from benchmarks.full_size import with_two_experts
from benchmarks.gpu_check.runs import run
from benchmarks.speedups import requests_of
from rendermill.actors.environment import make_deterministic
from rendermill.models import registry
from rendermill.models.settings import Settings


def check_wan(checkpoint: Path) -> None:
    """Measure how many clips at once pay, with 81 frames of 832 × 480 and two steps."""
    rows = [{"id": str(index), "prompt": f"prompt {index}"} for index in range(4)]
    rendered = run("wan", checkpoint, rows, defaults={"num_inference_steps": 2}, compile=False)
    print(f"Wan, strict, batch auto: {rendered.rate:.3f} clips/s", flush=True)


def check_wan_strict(checkpoint: Path) -> None:
    """Compare the pixels of two such clips, rendered together and alone in one process."""
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
    """Render clips of 33 frames with two experts, two steps each, that are both on the GPU or one after the other."""
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


WAN_CHECKS = {"wan": check_wan, "wan-strict": check_wan_strict, "wan-experts": check_wan_experts}
