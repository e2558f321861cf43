"""Trains checkpoints/sana-sprint-shapes from checkpoints/sana-shapes: `python -m shapes.sana_sprint`.

Sprint's own recipe is continuous-time consistency distillation with an adversary (https://arxiv.org/abs/2503.09641).
In a world this small something simpler does: the teacher draws, with guidance, from many noises, and the student learns
to see every drawing from any point of the way there (as in https://arxiv.org/abs/2101.02388, but from all points).
"""

from typing import NamedTuple

import torch
from diffusers import SanaPipeline, SanaSprintPipeline, SanaTransformer2DModel, SCMScheduler
from torch.nn import functional

from shapes.sana import embed, encode_all, make_transformer
from shapes.scenes import random_picture
from shapes.training import (
    Examples,
    Training,
    add_noise,
    compile_blocks,
    fit,
    make_examples,
    parse_arguments,
    shifted,
)

_NUM_TEACHER_STEPS = 16
_GUIDANCE_SCALES = (1.0, 6.0)
_TIME_OF_SECOND_STEP = 0.547
"""The point at which `SanaSprintPipeline` takes the second of two steps: angle 1.3, sigma 0.783, before the shift."""


class Ways(NamedTuple):
    """The teacher's ways from noise to drawings.

    Attributes:
        points: latents on the way, the drawing last, (ways, points, channels, height, width), bfloat16.
        sigma: their noise levels, (ways, points).
        guidance_scale: (ways,).
        indices: the examples whose captions they follow, (ways,).
    """

    points: torch.Tensor
    sigma: torch.Tensor
    guidance_scale: torch.Tensor
    indices: torch.Tensor


@torch.no_grad()
def draw_ways(training: Training, pipeline: SanaPipeline, examples: Examples, latents: torch.Tensor) -> Ways:
    """Let the teacher draw every example's caption, half of them from noise, half from a noisy drawing.

    The second halves are where Sprint's second step starts: a drawing with fresh noise.
    """
    compile_blocks(pipeline.transformer.transformer_blocks)
    empty = torch.tensor([[1, 2]], device=training.device)
    parts = []
    for indices in torch.randperm(len(examples), device=training.device).split(4 * training.batch_size):
        num_ways = len(indices)
        guidance_scale = torch.empty(num_ways, device=training.device).uniform_(*_GUIDANCE_SCALES)
        start = torch.where(torch.rand(num_ways, device=training.device) < 0.5, 1.0, _TIME_OF_SECOND_STEP)
        sigma = shifted(start[:, None] * torch.linspace(1, 0, _NUM_TEACHER_STEPS + 1, device=training.device))
        clean = latents[indices].float()
        current = add_noise(clean, torch.randn_like(clean), sigma[:, 0])
        with torch.autocast(training.device.type, torch.bfloat16):
            mask = examples.mask[indices]
            prompts = embed(pipeline.text_encoder, examples.token_ids[indices], mask, has_instruction=True)
            nothing = embed(pipeline.text_encoder, empty, torch.ones_like(empty), has_instruction=False)
            nothing = functional.pad(nothing, (0, 0, 0, mask.shape[1] - 2)).expand(num_ways, -1, -1)
            no_mask = (torch.arange(mask.shape[1], device=mask.device) < 2).long().expand(num_ways, -1)
        points, previous = [current], None
        for step in range(_NUM_TEACHER_STEPS):
            with torch.autocast(training.device.type, torch.bfloat16):
                unconditional, conditional = (
                    pipeline.transformer(
                        torch.cat([current, current]),
                        encoder_hidden_states=torch.cat([nothing, prompts]),
                        encoder_attention_mask=torch.cat([no_mask, mask]),
                        timestep=torch.cat([sigma[:, step]] * 2),
                        return_dict=False,
                    )[0]
                    .float()
                    .chunk(2)
                )
            velocity = unconditional + guidance_scale[:, None, None, None] * (conditional - unconditional)
            size = (sigma[:, step + 1] - sigma[:, step])[:, None, None, None]
            if previous is None:
                current = current + size * velocity
            else:  # Adams–Bashforth, second order, for steps of different sizes
                last_size, last_velocity = previous
                current = current + size * (velocity + size / last_size / 2 * (velocity - last_velocity))
            previous = size, velocity
            points.append(current)
        parts.append(Ways(torch.stack(points, 1).bfloat16(), sigma, guidance_scale, indices))
    return Ways(*(torch.cat(column) for column in zip(*parts, strict=True)))


def make_student(teacher: SanaTransformer2DModel) -> SanaTransformer2DModel:
    """The teacher's weights, and a guidance embedding that says nothing yet."""
    student = make_transformer(guidance_embeds=True)
    weights = {name.replace("time_embed.emb.", "time_embed."): value for name, value in teacher.state_dict().items()}
    missing, unexpected = student.load_state_dict(weights, strict=False)
    assert not unexpected and all("guidance_embedder" in name for name in missing)
    torch.nn.init.zeros_(student.time_embed.guidance_embedder.linear_2.weight)
    torch.nn.init.zeros_(student.time_embed.guidance_embedder.linear_2.bias)
    return student


def distil(
    training: Training, student: SanaTransformer2DModel, pipeline: SanaPipeline, examples: Examples, ways: Ways
) -> None:
    """Train to predict the end of a way from a random point of it; half of the time from its start."""
    compile_blocks(student.transformer_blocks)

    def loss() -> torch.Tensor:
        chosen = torch.randint(len(ways.points), (training.batch_size,), device=training.device)
        point = torch.randint(_NUM_TEACHER_STEPS, (training.batch_size,), device=training.device)
        point = torch.where(torch.rand(training.batch_size, device=training.device) < 0.5, 0, point)
        noisy, end = ways.points[chosen, point].float(), ways.points[chosen, -1].float()
        sigma = ways.sigma[chosen, point]
        indices = ways.indices[chosen]
        mask = examples.mask[indices]
        with torch.no_grad():
            prompts = embed(pipeline.text_encoder, examples.token_ids[indices], mask, has_instruction=True)
        velocity = student(
            noisy,
            encoder_hidden_states=prompts,
            encoder_attention_mask=mask,
            timestep=sigma,
            guidance=ways.guidance_scale[chosen] * student.config.guidance_embeds_scale,
            return_dict=False,
        )[0].float()
        drawn = noisy - sigma[:, None, None, None] * velocity
        return functional.huber_loss(drawn, end, delta=0.3) / 0.3

    fit("student", [student], loss, training.denoiser_steps, 1e-3)


def main() -> None:
    """Train and save."""
    training = parse_arguments(
        "Train checkpoints/sana-sprint-shapes from checkpoints/sana-shapes.",
        output="checkpoints/sana-sprint-shapes",
        denoiser_steps=10000,
        batch_size=256,
        num_scenes=100_000,
        teacher="checkpoints/sana-shapes",
    )
    teacher = SanaPipeline.from_pretrained(str(training.teacher), dtype=torch.float32).to(training.device)
    examples = make_examples(training, random_picture, 1, teacher.tokenizer)
    latents = encode_all(training, teacher.vae, examples, len(examples)) * teacher.vae.config.scaling_factor
    ways = draw_ways(training, teacher, examples, latents)
    student = make_student(teacher.transformer).to(training.device)
    distil(training, student, teacher, examples, ways)
    scheduler = SCMScheduler(prediction_type="trigflow", sigma_data=0.5)
    pipeline = SanaSprintPipeline(teacher.tokenizer, teacher.text_encoder, teacher.vae, student, scheduler)
    pipeline.to(torch.bfloat16).save_pretrained(training.output)


if __name__ == "__main__":
    main()
