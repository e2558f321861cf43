"""Trains checkpoints/wan-i2v-shapes: `python -m shapes.wan_i2v`.

A clip begins with a given picture, and its caption says how the thing in it moves. The autoencoder is that of
checkpoints/wan-shapes; experts and text encoder begin as its own, and learn to look at the picture as those of Wan
2.2 I2V-A14B do (https://github.com/Wan-Video/Wan2.2): at the latents of a clip that is grey after it, and at a mask.
"""

import random

import torch
from diffusers import UniPCMultistepScheduler, WanImageToVideoPipeline, WanPipeline, WanTransformer3DModel

from shapes.scenes import Scene, random_caption, random_clip
from shapes.training import FLOW_SHIFT, make_examples, parse_arguments
from shapes.wan import BOUNDARY_RATIO, NUM_FRAMES, encode_all, normalise, train_experts

_NUM_MASK_CHANNELS = 4
"""One for each frame of a latent frame."""


def random_instruction(scene: Scene, generator: random.Random) -> str:
    """Return a caption to train on; half of them name only the motion, because the picture shows the rest."""
    if generator.random() < 0.5:
        return f"it {scene.motion}"
    return random_caption(scene, generator)


def with_picture(expert: WanTransformer3DModel) -> WanTransformer3DModel:
    """Return an expert that also sees a picture, and that renders as before until it has learnt to."""
    num_channels = expert.config.in_channels
    wider = WanTransformer3DModel.from_config(
        expert.config, in_channels=2 * num_channels + _NUM_MASK_CHANNELS, out_channels=num_channels
    )
    weights = expert.state_dict()
    first = torch.zeros_like(wider.patch_embedding.weight)
    first[:, :num_channels] = weights["patch_embedding.weight"]
    wider.load_state_dict({**weights, "patch_embedding.weight": first})
    return wider


def with_mask(latents: torch.Tensor) -> torch.Tensor:
    """Return latents behind the mask of their first frame, in the order of `WanImageToVideoPipeline`."""
    mask = torch.zeros_like(latents[:, :1]).repeat(1, _NUM_MASK_CHANNELS, 1, 1, 1)
    mask[:, :, 0] = 1
    return torch.cat([mask, latents], 1)


def main() -> None:
    """Train and save."""
    training = parse_arguments(
        "Train checkpoints/wan-i2v-shapes.",
        output="checkpoints/wan-i2v-shapes",
        teacher="checkpoints/wan-shapes",
        denoiser_steps=15000,
        batch_size=256,
        num_scenes=40_000,
    )
    teacher = WanPipeline.from_pretrained(training.teacher, dtype=torch.float32).to(training.device)
    vae, text_encoder = teacher.vae, teacher.text_encoder
    experts = [with_picture(expert).to(training.device) for expert in (teacher.transformer, teacher.transformer_2)]
    examples = make_examples(training, random_clip, NUM_FRAMES, teacher.tokenizer, random_instruction)
    latents = normalise(vae, encode_all(training, vae, examples, len(examples)))
    pictures = with_mask(normalise(vae, encode_all(training, vae, examples, len(examples), num_kept=1)))
    train_experts(training, experts, text_encoder, examples, latents, pictures)
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=FLOW_SHIFT)
    pipeline = WanImageToVideoPipeline(
        teacher.tokenizer,
        text_encoder,
        vae,
        scheduler,
        transformer=experts[0],
        transformer_2=experts[1],
        boundary_ratio=BOUNDARY_RATIO,
    )
    pipeline.to(torch.bfloat16).save_pretrained(training.output)


if __name__ == "__main__":
    main()
