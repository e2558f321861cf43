"""Prompts: their encoding in batches, and the tokens that are cut off."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from rendermill.manifests.request import Request
from rendermill.models.parts.exact_batches import ExactBatches
from rendermill.models.settings import Settings

_REFERENCE_BATCH = 8
"""Prompts in every forward pass of a text encoder in strict mode; encoding is cheap, so one size suits all models."""

_LARGEST_BATCH = 32


def text_batches(settings: Settings) -> ExactBatches:
    """Return the batches in which a text encoder takes prompts."""
    reference = None if settings.reference_batch is None else _REFERENCE_BATCH
    return ExactBatches(reference, _LARGEST_BATCH)


def encode_unique(
    encode: Callable[[list[str]], tuple[torch.Tensor, ...]], batches: ExactBatches, prompts: Sequence[str]
) -> list[tuple[torch.Tensor, ...]]:
    """Encode each distinct prompt once.

    Args:
        encode: returns tensors (prompts, …) for a list of prompts.
        batches: choose how many prompts are encoded at once.

    Returns:
        For each prompt its slice of every tensor, (1, …).
    """
    distinct = list(dict.fromkeys(prompts))
    place = {prompt: index for index, prompt in enumerate(distinct)}
    tensors = batches.with_tuples(
        lambda indices: encode([distinct[index] for index in indices.tolist()]), torch.arange(len(distinct))
    )
    return [tuple(tensor[place[prompt]][None] for tensor in tensors) for prompt in prompts]


def count_tokens_over(tokenizer: Any, texts: Sequence[str], limit: int) -> list[int]:
    """Return for each text the number of its tokens, including special ones, beyond a limit."""
    distinct = list(dict.fromkeys(texts))
    ids = tokenizer(distinct, add_special_tokens=True, verbose=False).input_ids
    num_over = {text: max(0, len(own) - limit) if text else 0 for text, own in zip(distinct, ids, strict=True)}
    return [num_over[text] for text in texts]


def effective_negative_prompt(request: Request) -> str:
    """Return the negative prompt, or an empty text if it has no effect without guidance."""
    return (request.negative_prompt or "") if request.is_guided else ""
