"""Tiny random text encoders with tokenizers that were trained from a few lines."""

import json
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

_LINES = [
    "a red circle left of a blue square", "a photo of a cat on a mat", "it moves right", "blurry, low quality",
    "the quick brown fox jumps over the lazy dog 0123456789", "a green triangle above a yellow star, une forêt",
]  # fmt: skip
SIZE = 400


def clip_tokenizer() -> CLIPTokenizer:
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(False)])
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(_LINES, trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in trained["merges"]]
    return CLIPTokenizer(vocab=trained["vocab"], merges=merges, model_max_length=77)


def t5_tokenizer() -> T5Tokenizer:
    trainer = trainers.UnigramTrainer(
        vocab_size=SIZE, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(_LINES, trainer)
    vocabulary = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["vocab"]]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)


def byte_tokenizer(special: list[str], template: str | None = None, **tokens: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes, as those of language models are; `tokens` names special ones, as `pad_token`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(_LINES, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens)
    made.chat_template = template
    return made


def clip_text(seed: int, hidden_size: int = 32, projects: bool = False, **changes: Any) -> torch.nn.Module:
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        hidden_size=hidden_size,
        projection_dim=hidden_size,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=3,
        vocab_size=SIZE,
        **changes,
    )
    return (CLIPTextModelWithProjection if projects else CLIPTextModel)(config).eval()


def t5_text(seed: int = 0, d_model: int = 32) -> T5EncoderModel:
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=SIZE, d_model=d_model, d_kv=8, d_ff=37, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    return T5EncoderModel(config).eval()
