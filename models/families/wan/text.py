"""Prompts of Wan's pipelines, which all encode them with the same text encoder in the same way."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.pipelines.wan.pipeline_wan import prompt_clean

from rendermill.manifests.request import Request
from rendermill.models.parts.exact_batches import ExactBatches
from rendermill.models.parts.prompts import count_tokens_over, effective_negative_prompt, encode_unique


def encode_texts(
    pipeline: Any, batches: ExactBatches, texts: Sequence[str], max_sequence_length: int
) -> list[torch.Tensor]:
    """Return the embeddings of each text, (1, max_sequence_length, channels), padded with zeros."""

    def encode(batch: list[str]) -> tuple[torch.Tensor, ...]:
        return (
            pipeline._get_t5_prompt_embeds(
                prompt=batch, max_sequence_length=max_sequence_length, device=pipeline._execution_device
            ),
        )

    return [embeds for (embeds,) in encode_unique(encode, batches, texts)]


def count_cut_tokens(tokenizer: Any, requests: Sequence[Request], max_sequence_length: int) -> list[int]:
    """Return for each request the number of tokens of its prompts beyond the limit."""
    prompts = [request.prompt for request in requests]
    negative_prompts = [effective_negative_prompt(request) for request in requests]
    texts = [prompt_clean(text) for text in prompts + negative_prompts]
    num_cut = count_tokens_over(tokenizer, texts, max_sequence_length)
    return [sum(pair) for pair in zip(num_cut[: len(prompts)], num_cut[len(prompts) :], strict=True)]
