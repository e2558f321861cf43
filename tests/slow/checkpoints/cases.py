"""Odd checkpoints: those that render as the original, and those that are refused."""

import json
import shutil
from pathlib import Path
from typing import Any

from tests.support import odd_checkpoints as odd
from tests.support.odd_checkpoints import TEXT, UNET, in_turn, keys, removed, renamed, sharded, text, without

NO_EXPERT_2 = in_turn(removed("transformer_2"), keys("model_index.json", transformer_2=[None, None]))
FLOW_MATCHING = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}


def nothing(folder: Path) -> None:
    """A checkpoint as it is."""


def with_scheduler(**config: Any) -> odd.Change:
    return in_turn(
        text("scheduler/scheduler_config.json", json.dumps(config)),
        keys("model_index.json", scheduler=["diffusers", config["_class_name"]]),
    )


RENDERED: dict[str, tuple[str, odd.Change, dict[str, Any]]] = {
    "as it is": ("sana", nothing, {}),
    "shards": ("sana", in_turn(sharded("transformer"), sharded("text_encoder", "model")), {}),
    "only fp16": ("sana", odd.as_variant("fp16"), {"variant": "fp16"}),
    "fp16 beside plain": ("sana", odd.as_variant("fp16", is_copied=True), {}),
    "one component in fp16": (
        "sana",
        lambda folder: (folder / "vae" / UNET).rename(folder / "vae" / "diffusion_pytorch_model.fp16.safetensors"),
        {"variant": "fp16"},
    ),
    "shards in fp16": ("sana", sharded("transformer", variant=".fp16"), {"variant": "fp16"}),
    "no metadata": ("sana", renamed(f"vae/{UNET}", str), {}),
    "names of another head": ("sana", renamed(TEXT, "model.{}".format), {}),
    "a linked folder": ("sana", odd.linked("text_encoder"), {}),
    "a linked file": ("sana", odd.linked(f"vae/{UNET}"), {}),
    "a link that leads back": ("sana", lambda folder: (folder / "again").symlink_to(folder), {}),
    "a snapshot of the Hub": ("sana", odd.as_snapshot, {}),
    "unknown keys": ("sana", in_turn(keys("vae/config.json", x=1), keys("transformer/config.json", y=2)), {}),
    "no key that has a default": ("sana", keys("transformer/config.json", norm_eps=1e-6), {}),
    "what training leaves": (
        "sana",
        in_turn(text("training_args.bin", "x"), text("random_states_0.pkl", "x"), text("vae/optimizer.bin", "x")),
        {},
    ),
    "weights of a LoRA beside": ("sana", lambda folder: shutil.copy(folder / TEXT, folder / "lora.safetensors"), {}),
    "empty parts": ("sana", keys("model_index.json", safety_checker=[None, None], feature_extractor=None, on=True), {}),
    "one name of a tied tensor": (
        "wan",
        in_turn(keys("text_encoder/config.json", tie_word_embeddings=False), renamed(TEXT, str)),
        {},
    ),
    "the other name of a tied tensor": (
        "wan",
        in_turn(
            keys("text_encoder/config.json", tie_word_embeddings=False),
            renamed(TEXT, lambda name: name.replace("shared.weight", "encoder.embed_tokens.weight")),
        ),
        {},
    ),
    "one expert of none": ("wan", in_turn(NO_EXPERT_2, keys("model_index.json", boundary_ratio=None)), {}),
}
"""What renders as the original, and how the model's config says so."""

REFUSED: dict[str, tuple[str, odd.Change, str]] = {
    "only fp16": ("sana", odd.as_variant("fp16"), "it has no text_encoder/model.safetensors, but weights of the var"),
    "no shard": (
        "sana",
        in_turn(sharded("transformer"), removed("transformer/diffusion_pytorch_model-00002-of-00003.safetensors")),
        "it has no transformer/diffusion_pytorch_model-00002-of-00003.safetensors, and transformer/diffusion_pyt",
    ),
    "index of another checkpoint": (
        "sana",
        in_turn(
            sharded("transformer"),
            without("transformer/diffusion_pytorch_model-00001-of-00003.safetensors", "proj_out.bias"),
            without("transformer/diffusion_pytorch_model-00002-of-00003.safetensors", "proj_out.bias"),
            without("transformer/diffusion_pytorch_model-00003-of-00003.safetensors", "proj_out.bias"),
        ),
        "has no tensor proj_out.bias, and transformer/diffusion_pytorch_model.safetensors.index.json names it",
    ),
    "no second expert": ("wan", NO_EXPERT_2, "model_index.json: with boundary_ratio 0.55 it needs transformer_2"),
    "no folder of an expert": ("wan", removed("transformer_2"), "it has no transformer_2/config.json, and its model_"),
    "no first expert": (
        "wan",
        keys("model_index.json", transformer=[None, None]),
        "it needs transformer, and has none",
    ),
    "ratio in words": (
        "wan",
        keys("model_index.json", boundary_ratio="half"),
        "boundary_ratio should be a number from",
    ),
    "pointer of weights": ("sana", text(f"transformer/{UNET}", odd.POINTER), f"transformer/{UNET} is a pointer of Git"),
    "pointer of a config": ("sana", text("vae/config.json", odd.POINTER), "vae/config.json is a pointer of Git LFS"),
    "pointer of a tokenizer": ("sana", text("tokenizer/tokenizer.json", odd.POINTER), "tokenizer.json is a pointer of"),
    "empty config": ("sana", text("vae/config.json", ""), "vae/config.json is empty"),
    "empty index": ("sana", text("model_index.json", " \n"), "model_index.json is empty"),
    "no JSON": ("sana", text("vae/config.json", "{"), "vae/config.json is no JSON"),
    "a list": ("sana", text("vae/config.json", "[]"), "vae/config.json should hold keys and values, and holds a list"),
    "an index that is a list": ("sana", text("model_index.json", "[]"), "model_index.json should hold keys and values"),
    "byte order mark": (
        "sana",
        text("model_index.json", b"\xef\xbb\xbf{}"),
        "model_index.json begins with a byte order",
    ),
    "cut weights": (
        "sana",
        odd.cut(f"transformer/{UNET}", 10**6),
        f"transformer/{UNET} has 1000000 bytes, and its head",
    ),
    "cut header": ("sana", odd.cut(f"transformer/{UNET}", 100), f"transformer/{UNET} ends within its header"),
    "empty weights": ("sana", text(f"vae/{UNET}", ""), f"vae/{UNET} is empty"),
    "no weights": ("sana", removed(f"vae/{UNET}"), f"it has no vae/{UNET}, and its model_index.json names vae"),
    "weights of HTML": ("sana", text(f"vae/{UNET}", "<html>" * 99), f"vae/{UNET} is no safetensors file"),
    "no tokenizer": ("sana", removed("tokenizer"), "it has no tokenizer/tokenizer.json"),
    "no scheduler": ("sana", removed("scheduler"), "it has no scheduler/scheduler_config.json"),
    "no VAE at all": ("sana", keys("model_index.json", vae=[None, None]), "its model_index.json names no vae, which"),
    "dangling link": ("sana", in_turn(odd.as_snapshot, removed("../blobs/" + f"{5:040x}")), "which is not there"),
    "quantized": (
        "sana",
        keys("transformer/config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        "transformer/config.json: its weights are quantized with bitsandbytes, which needs the package bitsandbytes",
    ),
    "patch of a number": ("wan", keys("transformer/config.json", patch_size=2), "patch_size should be three whole num"),
    "steps in words": (
        "sana",
        keys("scheduler/scheduler_config.json", num_train_timesteps="x"),
        "should be a positive",
    ),
    "another scheduler": ("sana-sprint", with_scheduler(**FLOW_MATCHING), "SanaSprintPipeline needs a SCMScheduler"),
}
"""What the files alone tell."""

NOT_LOADED: dict[str, tuple[str, odd.Change, str]] = {
    "no tensor": (
        "sana",
        without(f"vae/{UNET}", "decoder.conv_in.weight"),
        "vae: its weights lack tensor decoder.conv",
    ),
    "no tensor of a text encoder": (
        "sana",
        without(TEXT, "layers.0.self_attn.k_proj.weight"),
        "text_encoder: its weights lack tensor layers.0.self_attn.k_proj.weight",
    ),
    "other names": (
        "sana",
        renamed(TEXT, "text_model.{}".format),
        "text_encoder: its weights lack tensor embed_tokens.weight and 34 others; its weights have tensor text_model.e",
    ),
    "one more": (
        "wan",
        odd.rewritten(f"transformer/{UNET}", lambda tensors: tensors | {"zero": tensors["proj_out.bias"]}),
        "transformer: its weights have tensor zero, for which its class has no use",
    ),
    "another shape": (
        "sana",
        odd.rewritten(
            f"vae/{UNET}", lambda tensors: tensors | {"decoder.conv_in.bias": tensors["encoder.conv_in.bias"]}
        ),
        "vae: tensor decoder.conv_in.bias has the shape",
    ),
    "unknown class": (
        "wan",
        keys("model_index.json", transformer=["diffusers", "WanTransformer9DModel"]),
        "transformer: diffusers has no class WanTransformer9DModel",
    ),
    "another config": (
        "sana",
        keys("transformer/config.json", num_layers=8),
        "transformer: its weights lack tensor tra",
    ),
    "bad config": (
        "sana",
        keys("transformer/config.json", num_layers="x"),
        "SanaTransformer2DModel cannot be made from",
    ),
    "another tokenizer": (
        "sana",
        keys("model_index.json", tokenizer=["transformers", "GemmaTokenizer"]),
        "tokenizer: its files cannot be used as a GemmaTokenizer",
    ),
    "no such tokenizer": ("sana", keys("model_index.json", tokenizer=["transformers", "X"]), "has no class X"),
    "shift by size": (
        "wan",
        with_scheduler(**FLOW_MATCHING, use_dynamic_shifting=True),
        "scheduler: FlowMatchEulerDiscreteScheduler cannot be used with this config: ValueError: `mu` must be passed",
    ),
}
"""What only torch tells."""
