"""Frames and sound from the output object of a pipeline of diffusers."""

from typing import Any

import numpy as np
import torch
from PIL import Image

_PICTURES = ("images", "image", "frames", "videos", "video")
_DECODERS = ("vae", "movq", "vqvae", "vqgan")
_DENOISERS = ("transformer", "transformer_2", "unet")


def frames_of(output: Any) -> np.ndarray:
    """Return the pictures of the only item of an output: uint8, (frames, height, width, 3), RGB.

    Raises:
        ValueError: the output holds something else.
    """
    for name in _PICTURES:
        items = getattr(output, name, None)
        if items is not None:
            item = items[0]
            pictures = [item] if isinstance(item, Image.Image) else item
            return np.stack([_as_array(picture) for picture in pictures])
    raise ValueError(f"the pipeline returned neither pictures nor frames, but {type(output).__name__}")


def audio_of(output: Any, pipeline: Any) -> tuple[torch.Tensor | None, int | None]:
    """Return the sound of the only item of an output, float32, (channels, samples), and its samples per second."""
    audio = getattr(output, "audio", None)
    if audio is None:
        return None, None
    sound = torch.as_tensor(audio[0]).detach().to("cpu", torch.float32)
    vocoder = getattr(pipeline, "vocoder", None)
    if vocoder is None:
        raise ValueError(f"{type(pipeline).__name__} renders sound and does not say at how many samples per second")
    config = vocoder.config
    rate = config.get("output_sampling_rate") or config["sampling_rate"]
    return sound.reshape(-1, sound.shape[-1]), int(rate)


def _as_array(picture: Any) -> np.ndarray:
    if isinstance(picture, Image.Image):
        if picture.mode not in ("RGB", "L"):
            raise ValueError(f"the pipeline returned a picture of the mode {picture.mode}; RGB is stored, and no other")
        return np.array(picture.convert("RGB"))
    values = np.asarray(picture)  # a pipeline that ignores `output_type` returns floats, 0 … 1
    return values if values.dtype == np.uint8 else (values * 255).round().astype(np.uint8)


class FiniteWatch:
    """Watches whether a pipeline's decoder returns NaN or infinity, which the conversion to pictures would hide.

    Where a pipeline has no decoder, its denoiser is watched. A context holds one call of the pipeline.
    """

    def __init__(self, pipeline: Any) -> None:
        components = pipeline.components
        decoders = [getattr(components.get(name), "decoder", None) for name in _DECODERS]
        watched = [module for module in decoders if isinstance(module, torch.nn.Module)]
        for module in watched or [components[name] for name in _DENOISERS if components.get(name) is not None]:
            module.register_forward_hook(self._see)
        self._seen: list[torch.Tensor] = []

    def __enter__(self) -> None:
        self._seen.clear()

    def __exit__(self, *_: object) -> None:
        pass

    def was_finite(self) -> bool:
        """Return whether all outputs of the last call were finite."""
        return all(bool(seen) for seen in self._seen)

    def _see(self, _module: torch.nn.Module, _arguments: Any, output: Any) -> None:
        first = output if isinstance(output, torch.Tensor) else output[0]
        if isinstance(first, torch.Tensor):
            self._seen.append(torch.isfinite(first).all())
