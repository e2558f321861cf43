"""The benefit and the cost of each of a model's `speedups`: `python -m benchmarks.speedups {sana,wan,adherence}`.

`sana` and `wan` time the denoiser in the published models' sizes, compiled, on a GPU; random weights do. `adherence`
renders held-out captions with the shapes checkpoints, counts how many come out as asked, and compares the pixels with
those rendered without speedups.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.adherence import judge, scenes_of
from benchmarks.full_size import build_sana_1600m, build_wan_a14b
from rendermill.actors.environment import make_deterministic
from rendermill.manifests.request import Request
from rendermill.models import registry
from rendermill.models.interface import Model
from rendermill.models.settings import Settings, Speedups
from shapes import sana, wan
from shapes.scenes import caption
from tests.support.requests import request_for

_CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
_BATCH = 16

PRODUCTS = {
    "none": Speedups(),
    "float32_matmul_precision: high": Speedups(float32_matmul_precision="high"),
    "quantization: float8": Speedups(quantization="float8"),
}
PASSES = {
    "guidance_interval: [0, 0.6]": Speedups(guidance_interval=(0.0, 0.6)),
    "cache_interval: 2": Speedups(cache_interval=2),
}
_TOGETHER = Speedups(quantization="float8", float32_matmul_precision="high", guidance_interval=(0.0, 0.6))
TOGETHER = {
    "float8, high, [0, 0.6]": _TOGETHER,
    "float8, high, [0, 0.6], 2": _TOGETHER.model_copy(update={"cache_interval": 2}),
}
BACKENDS = {
    f"attention_backend: {name}": Speedups(attention_backend=name)
    for name in ("_native_cudnn", "_native_flash", "_native_efficient")
}


def requests_of(prompts: Sequence[str], **fields: Any) -> list[Request]:
    """A request a prompt; the seeds are the prompts' indices."""
    return [request_for(prompt, seed, id=f"{seed}", **fields) for seed, prompt in enumerate(prompts)]


def load(pipeline_class: str, folder: Path, speedups: Speedups, reference_batch: int, is_compiled: bool) -> Model:
    """A model on this machine's device."""
    torch.set_float32_matmul_precision("highest")
    settings = Settings(
        dtype={"default": "bfloat16"}, compile=is_compiled, reference_batch=reference_batch, speedups=speedups
    )
    return registry.load(pipeline_class, folder, settings, make_deterministic(is_compiled))


def time_denoising(pipeline_class: str, folder: Path, batch: int, fields: dict[str, Any], settings: Any) -> None:
    """Print seconds an item of the denoising loop, of a second batch, and the most memory it took."""
    requests = requests_of([f"prompt {index}" for index in range(batch)], **fields)
    usual = 0.0
    for name, speedups in settings.items():
        try:
            model = load(pipeline_class, folder, speedups, batch, is_compiled=True)
            embeddings = model.encode(requests)
            began = time.perf_counter()
            model.denoise(requests, embeddings)
            torch.cuda.synchronize()
            first = time.perf_counter() - began
            torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            model.denoise(requests, embeddings)
            torch.cuda.synchronize()
            seconds = (time.perf_counter() - began) / batch
            usual = usual or seconds
            gib = torch.cuda.max_memory_allocated() / 2**30
            speed = f"{seconds:8.4f} s, {usual / seconds:5.2f} times as fast"
            print(f"{name:35} {speed}, {gib:5.1f} GiB, the first {first:.0f} s", flush=True)
            del model, embeddings  # which refer to themselves
        except (RuntimeError, ValueError) as error:
            print(f"{name:35} cannot be had here: {str(error).splitlines()[0]}", flush=True)
        torch.compiler.reset()
        gc.collect()
        torch.cuda.empty_cache()


def render(model: Model, requests: list[Request], batch: int) -> np.ndarray:
    """Return frames, uint8, (items, frames, height, width, 3)."""
    frames = []
    for start in range(0, len(requests), batch):
        part = requests[start : start + batch]
        frames.append(model.render(part, model.encode(part)).frames.cpu().numpy())
    return np.concatenate(frames)


def compare_adherence(
    pipeline_class: str, folder: Path, num_captions: int, fields: dict[str, Any], settings: Any
) -> None:
    """Print the share of captions that came out, and how far pixels are from those without speedups."""
    scenes = scenes_of(pipeline_class, num_captions)
    usual: np.ndarray | None = None
    for name, speedups in settings.items():
        num_steps = fields["num_inference_steps"]
        if isinstance(speedups, int):
            num_steps, speedups = speedups, Speedups()
        requests = requests_of([caption(scene) for scene in scenes], **fields | {"num_inference_steps": num_steps})
        frames = render(load(pipeline_class, folder, speedups, 25, is_compiled=False), requests, 25)
        usual = frames if usual is None else usual
        share = judge(scenes, list(frames))["whole caption"]
        error = ((frames.astype(np.float32) - usual) ** 2).reshape(len(frames), -1).mean(axis=1)
        psnr = 10 * np.log10(255**2 / np.maximum(error, 1e-2))
        print(f"{folder.name:15} {name:35} {share:6.1%} of captions, PSNR {np.median(psnr):5.1f} dB", flush=True)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["sana", "wan", "adherence"])
    parser.add_argument("--num-captions", type=int, default=500)
    parser.add_argument("--checkpoints", nargs="+", choices=["sana-shapes", "wan-shapes"], help="default: both")
    given = parser.parse_args()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"on {device}, torch {torch.__version__}", flush=True)
    image = {
        "width": 1024,
        "height": 1024,
        "num_frames": 1,
        "fps": None,
        "num_inference_steps": 20,
        "guidance_scale": 4.5,
    }
    clip = {"width": 832, "height": 480, "num_frames": 81, "fps": 16.0, "num_inference_steps": 2, "guidance_scale": 5.0}
    with tempfile.TemporaryDirectory() as name:
        if given.what == "sana":
            build_sana_1600m(Path(name))
            time_denoising("SanaPipeline", Path(name), _BATCH, image, PRODUCTS | PASSES | TOGETHER)
        elif given.what == "wan":
            build_wan_a14b(Path(name))
            time_denoising("WanPipeline", Path(name), 1, clip, PRODUCTS | BACKENDS)
    if given.what == "adherence":
        faster: dict[str, Any] = {"none": Speedups()}
        faster |= {"12 steps": 12, "10 steps": 10}
        faster |= PASSES | (PRODUCTS | TOGETHER if torch.cuda.is_available() else {})
        small_image = image | {"width": sana.SIDE, "height": sana.SIDE}
        small_clip = clip | {"width": wan.SIDE, "height": wan.SIDE, "num_frames": wan.NUM_FRAMES}
        small_clip |= {"num_inference_steps": 20, "guidance_scale": 3.0}
        ways = {"sana-shapes": ("SanaPipeline", small_image), "wan-shapes": ("WanPipeline", small_clip)}
        for name in given.checkpoints or ways:
            pipeline_class, fields = ways[name]
            compare_adherence(pipeline_class, _CHECKPOINTS / name, given.num_captions, fields, faster)


if __name__ == "__main__":
    main()
