"""`BlankPipeline`, for benchmarks only: pictures of one colour, to measure the cost of everything around a model.

Its checkpoint is a folder with nothing but a `model_index.json` that names it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from rendermill.manifests.request import Request
from rendermill.models.inputs import Inputs, Media
from rendermill.models.interface import Model, Rendered
from rendermill.models.parts.exact_batches import ExactBatches
from rendermill.models.settings import Settings


class Blank(Model):
    """Renders pictures whose colour is the last 24 bits of the seed, or the mean colour of the input `image`."""

    def __init__(self, folder: Path, settings: Settings, device: str) -> None:
        self._device = device
        self._denoiser_batches = ExactBatches(None)

    @property
    def scheduler_name(self) -> str:
        return "none"

    @property
    def stages(self) -> Mapping[str, ExactBatches]:
        return {"denoiser": self._denoiser_batches}

    def save_memory(self) -> str | None:
        return None

    def encode(self, requests: Sequence[Request], inputs: Sequence[Inputs] = ()) -> list[list[float]]:
        """Return the colour of each item, 0 … 255."""
        return [
            _mean_colour(own["image"]) if "image" in own else list(map(float, request.seed.to_bytes(8, "big")[-3:]))
            for request, own in zip(requests, inputs or [{}] * len(requests), strict=True)
        ]

    def denoise(self, requests: Sequence[Request], embeddings: Sequence[list[float]]) -> torch.Tensor:
        # (items, frames, height, width, 3)
        shape = (requests[0].num_frames, requests[0].height, requests[0].width, 3)
        colour = torch.tensor(embeddings, dtype=torch.float32, device=self._device)
        return colour[:, None, None, None].expand(len(requests), *shape)

    def decode(self, latents: torch.Tensor) -> Rendered:
        is_finite = torch.ones(len(latents), dtype=torch.bool, device=self._device)
        return Rendered(latents[:, :, :1].to(torch.uint8).expand(latents.shape), is_finite)


def _mean_colour(image: Media) -> list[float]:
    return np.asarray(image.frames).mean(axis=(0, 1)).round().tolist()
