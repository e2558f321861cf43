"""How often a shapes checkpoint animates a picture as told: `python -m benchmarks.image_to_video FOLDER`.

Renders pictures and captions of combinations that training never saw, through the stock diffusers pipeline, and prints
how many clips begin with their picture and how many move as their caption says. Then it prints the same for captions of
other pictures, and for clips that stand still, to show what these figures are worth.
"""

import argparse
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import WanImageToVideoPipeline
from PIL import Image

from shapes.drawing import draw, random_layout
from shapes.scenes import Scene, held_out_scenes, random_clip
from shapes.scorer import watch
from shapes.wan import NUM_FRAMES, SIDE

_MIN_DECIBELS = 25.0
"""Between the given picture and the first frame of a clip that begins with it."""


def held_out_pictures(num_pictures: int) -> tuple[list[Scene], list[np.ndarray]]:
    """Return scenes in which something happens, and the first frame of a drawing of each, (SIDE, SIDE, 3), uint8."""
    moving = [scene for scene in held_out_scenes(random_clip, 2 * num_pictures) if scene.motion != "stands still"]
    scenes = moving[:num_pictures]
    clips = draw(random_layout(scenes, NUM_FRAMES, torch.Generator().manual_seed(0)), SIDE)
    first = ((clips[:, :, 0] / 2 + 0.5) * 255).round().byte().permute(0, 2, 3, 1)
    return scenes, list(first.numpy())


def render(
    pipeline: Any, pictures: Sequence[np.ndarray], captions: Sequence[str], **arguments: Any
) -> list[np.ndarray]:
    """Return the clip of each picture, (frames, SIDE, SIDE, 3), uint8; the seeds are the pictures' indices."""
    clips = []
    for seed, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        frames = pipeline(
            Image.fromarray(picture),
            caption,
            height=SIDE,
            width=SIDE,
            num_frames=NUM_FRAMES,
            generator=torch.Generator("cpu").manual_seed(seed),
            output_type="pil",
            **arguments,
        ).frames[0]
        clips.append(np.stack([np.asarray(frame) for frame in frames]))
    return clips


def judge(scenes: Sequence[Scene], pictures: Sequence[np.ndarray], clips: Sequence[np.ndarray]) -> dict[str, float]:
    """Return the shares of the clips that begin with their picture, that move as their scene does, and that do both."""
    begins = [_decibels(clip[0], picture) >= _MIN_DECIBELS for clip, picture in zip(clips, pictures, strict=True)]
    seen = [watch(clip) for clip in clips]
    moves = [found is not None and found.motion == scene.motion for found, scene in zip(seen, scenes, strict=True)]
    return {
        "begins with the picture": float(np.mean(begins)),
        "moves as told": float(np.mean(moves)),
        "both": float(np.mean(np.logical_and(begins, moves))),
    }


def _decibels(one: np.ndarray, other: np.ndarray) -> float:
    error = np.square(one.astype(float) - other.astype(float)).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def main() -> None:
    """Measure one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkpoint")
    parser.add_argument("--num-pictures", type=int, default=300)
    parser.add_argument("--num-inference-steps", type=int, default=20)
    parser.add_argument("--guidance-scale", type=float, default=3.0)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    pipeline: Any = WanImageToVideoPipeline.from_pretrained(given.checkpoint, dtype=getattr(torch, given.dtype))
    pipeline.to(given.device).set_progress_bar_config(disable=True)
    scenes, pictures = held_out_pictures(given.num_pictures)
    captions = [f"it {scene.motion}" for scene in scenes]
    shuffled = random.Random(0).sample(captions, len(captions))
    arguments = {"num_inference_steps": given.num_inference_steps, "guidance_scale": given.guidance_scale}
    kinds = {
        "as told": render(pipeline, pictures, captions, **arguments),
        "captions of other pictures": render(pipeline, pictures, shuffled, **arguments),
        "still clips": [np.stack([picture] * NUM_FRAMES) for picture in pictures],
    }
    for kind, clips in kinds.items():
        for name, share in judge(scenes, pictures, clips).items():
            print(f"{kind + ', ' + name:55} {100 * share:5.1f} %")


if __name__ == "__main__":
    main()
