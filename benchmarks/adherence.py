"""How often the shapes checkpoints draw what the prompt says: `python -m benchmarks.adherence FOLDER`.

Renders captions of combinations that training never saw, through the stock diffusers pipeline, looks at the pixels, and
prints for every attribute that captions name how often it came out.
"""

import argparse
import json
import multiprocessing
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, WanPipeline

from shapes import sana, wan
from shapes.scenes import COLOURS, SHAPES, Scene, Thing, caption, held_out_scenes, random_clip, random_picture
from shapes.scorer import compare, look, watch

ARGUMENTS: dict[str, dict[str, Any]] = {
    "SanaPipeline": {"num_inference_steps": 20},
    "SanaSprintPipeline": {"num_inference_steps": 2},
    "WanPipeline": {"num_inference_steps": 20, "guidance_scale": 3.0},
}
"""The arguments that the checkpoints' model cards name."""


def render(
    pipeline: Any, prompts: Sequence[str], batch_size: int, negative_prompts: Sequence[str] = (), **arguments: Any
) -> list[np.ndarray]:
    """Return the frames of every prompt, (frames, side, side, 3), uint8; the seeds are the prompts' indices."""
    rendered: list[np.ndarray] = []
    for start in range(0, len(prompts), batch_size):
        batch = list(prompts[start : start + batch_size])
        arguments["generator"] = [torch.Generator("cpu").manual_seed(start + index) for index in range(len(batch))]
        if negative_prompts:
            arguments["negative_prompt"] = list(negative_prompts[start : start + batch_size])
        if isinstance(pipeline, WanPipeline):
            size = {"height": wan.SIDE, "width": wan.SIDE, "num_frames": wan.NUM_FRAMES}
            clips = pipeline(batch, **size, output_type="np", **arguments).frames
            rendered += [(clip * 255).round().astype(np.uint8) for clip in clips]
        else:
            size = {"height": sana.SIDE, "width": sana.SIDE, "use_resolution_binning": False}
            images = pipeline(batch, **size, **arguments).images
            rendered += [np.asarray(image)[None] for image in images]
    return rendered


def _processes() -> ProcessPoolExecutor:
    # a fork of a process in which torch has used its threads can hang
    return ProcessPoolExecutor(
        mp_context=multiprocessing.get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    )


def scenes_of(pipeline_class: str, num_scenes: int) -> list[Scene]:
    """Return scenes for a pipeline to render: clips or pictures that training never saw."""
    return held_out_scenes(random_clip if pipeline_class == "WanPipeline" else random_picture, num_scenes)


def judge(scenes: Sequence[Scene], rendered: Sequence[np.ndarray]) -> dict[str, float]:
    """Return the shares of the scenes that came out right: whole, and by attribute.

    Args:
        rendered: frames of each scene, (frames, side, side, 3), uint8.
    """
    with _processes() as executor:
        verdicts = list(executor.map(compare, scenes, rendered, chunksize=8))
    shares = defaultdict(list)
    for verdict in verdicts:
        shares["whole caption"].append(all(verdict.values()))
        for attribute, is_right in verdict.items():
            shares[attribute].append(is_right)
    return {name: float(np.mean(values)) for name, values in shares.items()}


def measure_adherence(pipeline: Any, num_captions: int, batch_size: int, **arguments: Any) -> dict[str, float]:
    """Render captions; return the shares that `judge` gives, and the seconds per item."""
    scenes = scenes_of(type(pipeline).__name__, num_captions)
    started = time.monotonic()
    rendered = render(pipeline, [caption(scene) for scene in scenes], batch_size, **arguments)
    seconds = time.monotonic() - started
    return judge(scenes, rendered) | {"seconds": seconds / num_captions}


def measure_negative_prompt(pipeline: Any, num_captions: int, batch_size: int, **arguments: Any) -> dict[str, float]:
    """Captions that leave the colour open: the share drawn in some colour, without and with that as negative prompt."""
    generator = random.Random(0)
    prompts, colours = [], []
    for _ in range(num_captions):
        background, colour = generator.sample(list(COLOURS), 2)
        prompts.append(caption(Scene((Thing("", generator.choice(SHAPES)),), background)))
        colours.append(colour)
    shares = {}
    for name, negative_prompts in (("without", ()), ("with", colours)):
        rendered = render(pipeline, prompts, batch_size, negative_prompts, **arguments)
        with _processes() as executor:
            seen = list(executor.map(_colours, rendered, chunksize=8))
        shares[f"share {name} negative prompt"] = float(
            np.mean([c in found for c, found in zip(colours, seen, strict=True)])
        )
    return shares


def _colours(frames: np.ndarray) -> set[str]:
    if len(frames) == 1:
        return {seen.colour for seen in look(frames[0])[1]}
    scene = watch(frames)
    return {thing.colour for thing in scene.things} if scene else set()


def main() -> None:
    """Measure one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkpoint")
    parser.add_argument("--num-captions", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=25)
    parser.add_argument("--num-inference-steps", type=int, help="default: 20; Sprint 2")
    parser.add_argument("--guidance-scale", type=float, help="default: the pipeline's own; Wan 3.0")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--expert", choices=["high-noise", "low-noise"], help="Wan: draw all steps with one expert")
    parser.add_argument("--negative-prompt", action="store_true", help="measure what negative prompts keep out")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    given = parser.parse_args()
    pipeline = DiffusionPipeline.from_pretrained(given.checkpoint, dtype=getattr(torch, given.dtype)).to(given.device)
    pipeline.set_progress_bar_config(disable=True)
    if given.expert == "high-noise":
        pipeline.transformer_2 = pipeline.transformer
    elif given.expert == "low-noise":
        pipeline.transformer = pipeline.transformer_2
    asked = {"num_inference_steps": given.num_inference_steps, "guidance_scale": given.guidance_scale}
    arguments = ARGUMENTS[type(pipeline).__name__] | {name: value for name, value in asked.items() if value is not None}
    measure = measure_negative_prompt if given.negative_prompt else measure_adherence
    result = measure(pipeline, given.num_captions, given.batch_size, **arguments)
    if given.json:
        print(json.dumps(vars(given) | arguments | result))
        return
    for name, value in result.items():
        print(f"{name:30} {value:.2f}" if name == "seconds" else f"{name:30} {100 * value:5.1f} %")


if __name__ == "__main__":
    main()
