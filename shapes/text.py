"""The tokenizer of the shapes checkpoints: a token a word of the captions, bytes for everything else."""

import inspect
from collections.abc import Sequence

import torch
from diffusers import SanaPipeline
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from shapes.scenes import vocabulary_text

VOCABULARY_SIZE = 400
INSTRUCTION = "\n".join(inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default)
"""The text that `SanaPipeline` writes before every prompt by default; one token of this vocabulary."""


def make_tokenizer(model_max_length: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, so that a prompt in any script has tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - 1,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([vocabulary_text()], trainer)
    tokenizer.add_tokens([AddedToken(INSTRUCTION, normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=model_max_length,
    )


def tokenize(
    tokenizer: PreTrainedTokenizerFast, captions: Sequence[str], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and mask, (captions, tokens), int64, padded to the longest caption."""
    encoded = tokenizer(list(captions), padding=True, return_tensors="pt")
    return encoded.input_ids.to(device), encoded.attention_mask.to(device)
