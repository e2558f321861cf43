"""`WanVideoToVideoPipeline` (diffusers/pipelines/wan/pipeline_wan_video2video.py): a video rendered anew, in part."""

import inspect
from collections.abc import Sequence

import torch
from diffusers import WanVideoToVideoPipeline

from rendermill.manifests.request import Request
from rendermill.models.families.input_pictures import pictures
from rendermill.models.families.video_latents import normalized
from rendermill.models.families.wan.conditions import Condition, Size
from rendermill.models.families.wan.loop import Wan
from rendermill.models.inputs import Inputs
from rendermill.models.parts.noise import set_timesteps

_STRENGTH = inspect.signature(WanVideoToVideoPipeline.__call__).parameters["strength"].default


class WanVideoToVideo(Wan):
    """`WanVideoToVideoPipeline`: starts from the noisy `video`, at the step that `strength` says."""

    def condition(self, inputs: Inputs, size: Size) -> Condition:
        if "video" not in inputs:
            raise ValueError("video: this model needs one")
        frames = pictures(inputs, "video", size.num_frames)
        vae = self._pipeline.vae
        video = self._pipeline.video_processor.preprocess_video(frames, height=size.height, width=size.width)
        video = video.to(self._device, dtype=torch.float32).to(vae.dtype)
        clip = vae.encode(video).latent_dist.mode().float()
        return Condition(clip=normalized(vae, clip))

    def begin(self, request: Request) -> torch.Tensor:
        scheduler, num_steps = self._pipeline.scheduler, request.num_inference_steps
        strength = request.further_arguments.get("strength", _STRENGTH)
        set_timesteps(scheduler, num_steps, device=self._device)
        timesteps: torch.Tensor
        timesteps, _ = self._pipeline.get_timesteps(num_steps, scheduler.timesteps, strength, self._device)
        if not len(timesteps):
            raise ValueError(f"strength: {strength} of {num_steps} steps is no step at all; use more of either")
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(len(scheduler.timesteps) - len(timesteps))
        return timesteps

    def first_latents(
        self,
        requests: Sequence[Request],
        condition: Condition,
        timesteps: torch.Tensor,
        item_generators: list[torch.Generator],
    ) -> torch.Tensor:
        scheduler = self._pipeline.scheduler
        noise = super().first_latents(requests, condition, timesteps, item_generators)
        times = timesteps[:1].repeat(len(requests))
        noisy: torch.Tensor
        if hasattr(scheduler, "add_noise"):
            noisy = scheduler.add_noise(condition.clip, noise, times)
        else:
            noisy = scheduler.scale_noise(condition.clip, times, noise)
        return noisy
