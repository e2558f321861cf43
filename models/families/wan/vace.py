"""`WanVACEPipeline` (diffusers/pipelines/wan/pipeline_wan_vace.py): controlled by a video, a mask and references.

The stock pipeline renders one clip at a time. Its own methods encode the controls of each item here, one by one.
"""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import WanVACEPipeline

from rendermill.manifests.request import Request
from rendermill.models.families.input_pictures import pictures
from rendermill.models.families.wan.conditions import Condition, Size
from rendermill.models.families.wan.loop import Embeddings, Wan
from rendermill.models.inputs import Inputs
from rendermill.models.parts.compilation import prepare_blocks
from rendermill.models.parts.noise import noise
from rendermill.models.settings import Settings

_SCALE = inspect.signature(WanVACEPipeline.__call__).parameters["conditioning_scale"].default


class WanVace(Wan):
    """`WanVACEPipeline`: follows the `video` where the `mask` is black, and shows what the `reference_images` show."""

    def __init__(self, folder: Path, settings: Settings, device: str) -> None:
        super().__init__(folder, settings, device)
        for expert in filter(None, self._experts):
            prepare_blocks(expert.vace_blocks, settings)

    def condition(self, inputs: Inputs, size: Size) -> Condition:
        if "mask" in inputs and "video" not in inputs:
            raise ValueError("mask: it has no effect without a `video`; leave it empty")
        pipeline, num_frames = self._pipeline, size.num_frames
        video, mask, references = pipeline.preprocess_conditions(
            pictures(inputs, "video", num_frames) or None,
            pictures(inputs, "mask", num_frames) or None,
            pictures(inputs, "reference_images") or None,
            1,
            size.height,
            size.width,
            num_frames,
            torch.float32,
            self._device,
        )
        latents = pipeline.prepare_video_latents(video, mask, references, None, self._device)
        masks = pipeline.prepare_masks(mask, references)
        return Condition(control=torch.cat([latents, masks], dim=1).to(self._any_expert.dtype))

    @torch.no_grad()
    def denoise(self, requests: Sequence[Request], embeddings: Sequence[Embeddings]) -> torch.Tensor:
        # each reference picture takes a frame of the latents, so only items with the same number of them share a pass
        by_shape: dict[torch.Size, list[int]] = {}
        for index, item in enumerate(embeddings):
            assert item.condition.control is not None
            by_shape.setdefault(item.condition.control.shape, []).append(index)
        num_frames = self.latent_shape(requests[0])[1]
        latents: list[torch.Tensor] = [torch.empty(0)] * len(requests)
        for indices in by_shape.values():
            rendered = super().denoise([requests[index] for index in indices], [embeddings[index] for index in indices])
            for index, own in zip(indices, rendered[:, :, -num_frames:], strict=True):
                latents[index] = own
        return torch.stack(latents)

    def first_latents(
        self,
        requests: Sequence[Request],
        condition: Condition,
        timesteps: torch.Tensor,
        item_generators: list[torch.Generator],
    ) -> torch.Tensor:
        assert condition.control is not None
        channels, _, height, width = self.latent_shape(requests[0])
        return noise((channels, condition.control.shape[2], height, width), item_generators, self._device)

    def constants(self, request: Request) -> Mapping[str, Any]:
        scale = request.further_arguments.get("conditioning_scale", _SCALE)
        layers = self._any_expert.config.vace_layers
        scales = scale if isinstance(scale, list) else [scale] * len(layers)
        if len(scales) != len(layers):
            raise ValueError(f"conditioning_scale: {len(scales)} numbers, but {len(layers)} layers; give one for each")
        return {"control_hidden_states_scale": torch.tensor(scales).to(self._device, self._any_expert.dtype)}
