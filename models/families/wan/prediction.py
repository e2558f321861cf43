"""One prediction of Wan's experts for a batch, with guidance for each item."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from rendermill.models.families.wan.conditions import Condition
from rendermill.models.parts.exact_batches import ExactBatches


class Expert(NamedTuple):
    """A denoiser, the batches in which it takes items, and the guidance scale of each item, (items, 1, 1, 1, 1)."""

    network: torch.nn.Module
    batches: ExactBatches
    guidance_scale: torch.Tensor


class Prediction:
    """Predicts the flow of a batch's latents.

    Args:
        embeds: of the prompts and of the negative prompts, in the experts' dtype, (items, tokens, channels).
        condition: of the batch.
        has_token_times: whether the experts take a timestep for each token (`expand_timesteps`, Wan 2.2 TI2V-5B).
        constants: further arguments of the experts, the same for all items.
    """

    def __init__(
        self,
        embeds: tuple[torch.Tensor, torch.Tensor],
        condition: Condition,
        has_token_times: bool,
        constants: Mapping[str, Any],
    ) -> None:
        self._prompt_embeds, self._negative_embeds = embeds
        self._condition = condition
        self._has_token_times = has_token_times
        self._constants = constants

    def __call__(self, expert: Expert, timestep: torch.Tensor, latents: torch.Tensor, is_guided: bool) -> torch.Tensor:
        """Return the prediction of a step, in the expert's dtype.

        Args:
            latents: float32, (items, channels, latent frames, height, width).
            is_guided: whether to follow the guidance, which takes a second pass.
        """
        condition = self._condition
        one_size = partial(self._call, expert.network, timestep)
        model_input = condition.model_input(latents).to(self._prompt_embeds.dtype)
        pictures = [part for part in (condition.image_embeds, condition.control) if part is not None]
        prediction = expert.batches(one_size, model_input, self._prompt_embeds, *pictures)
        if not is_guided:
            return prediction
        unconditional = expert.batches(one_size, model_input, self._negative_embeds, *pictures)
        # as stock: a product of bf16 with a Python number is computed in float32 and rounded once
        difference = (expert.guidance_scale * (prediction - unconditional).float()).to(prediction.dtype)
        return unconditional + difference

    def _call(
        self,
        network: torch.nn.Module,
        timestep: torch.Tensor,
        latents: torch.Tensor,
        embeds: torch.Tensor,
        *pictures: torch.Tensor,
    ) -> torch.Tensor:
        return network(
            hidden_states=latents,
            timestep=self._times(timestep, latents),
            encoder_hidden_states=embeds,
            return_dict=False,
            **self._pictures(pictures),
            **self._constants,
        )[0]

    def _pictures(self, pictures: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        if self._condition.image_embeds is not None:
            return {"encoder_hidden_states_image": pictures[0].flatten(0, 1)}
        return {"control_hidden_states": pictures[0]} if self._condition.control is not None else {}

    def _times(self, timestep: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """Return a timestep for each item or for each token; it is 0 for tokens of a given first frame."""
        if not self._has_token_times:
            return timestep.expand(latents.shape[0])
        times = torch.ones_like(latents[0, 0, :, ::2, ::2], dtype=torch.float32) * timestep
        if self._condition.first_frame is not None:
            times[0] = 0
        return times.flatten().expand(latents.shape[0], -1)
