"""`BlankPipeline`, for benchmarks only: pictures of one colour, to measure the cost of everything around a model.

Its checkpoint is a folder with nothing but a `model_index.json` that names it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from rendermill.manifests.request import Request
from rendermill.models.inputs import Inputs
from rendermill.models.interface import Model, Rendered
from rendermill.models.parts.exact_batches import ExactBatches
from rendermill.models.settings import Settings


class Blank(Model):
    """Renders pictures whose colour is the last 24 bits of the seed."""

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

    def encode(self, requests: Sequence[Request], inputs: Sequence[Inputs] = ()) -> list[None]:
        return [None] * len(requests)

    def denoise(self, requests: Sequence[Request], embeddings: Sequence[None]) -> torch.Tensor:
        # (items, frames, height, width, 3)
        colours = [list(request.seed.to_bytes(8, "big")[-3:]) for request in requests]
        shape = (requests[0].num_frames, requests[0].height, requests[0].width, 3)
        colour = torch.tensor(colours, dtype=torch.float32, device=self._device)
        return colour[:, None, None, None].expand(len(requests), *shape)

    def decode(self, latents: torch.Tensor) -> Rendered:
        is_finite = torch.ones(len(latents), dtype=torch.bool, device=self._device)
        return Rendered(latents[:, :, :1].to(torch.uint8).expand(latents.shape), is_finite)
