"""Tiny random language models as text encoders, with tokenizers of bytes."""

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)

from tests.pipelines.texts import SIZE, byte_tokenizer

_CHAT = "{% for message in messages %}<s>{{ message['role'] }}: {{ message['content'] }}</s>{% endfor %}"
_SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
SHAPE = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": SIZE,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}}


def tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer(["<pad>", "<s>", "</s>"], _CHAT, **_SPECIAL)


def qwen_vl() -> torch.nn.Module:
    torch.manual_seed(0)
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=SHAPE | _ROPE, vision_config=vision)).eval()


def qwen_vl_text() -> torch.nn.Module:
    torch.manual_seed(0)
    return Qwen2_5_VLTextModel(Qwen2_5_VLTextConfig(**SHAPE, **_ROPE)).eval()


def qwen3(for_generation: bool = False) -> torch.nn.Module:
    torch.manual_seed(0)
    model_class = Qwen3ForCausalLM if for_generation else Qwen3Model
    return model_class(Qwen3Config(**SHAPE, head_dim=8)).eval()
