"""The parts that the trainings share: arguments, the scenes to train on, flow matching, and the loop."""

import argparse
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shapes.drawing import Layout, draw, random_layout
from shapes.scenes import Scene, random_caption, training_scenes
from shapes.text import tokenize

FLOW_SHIFT = 3.0
"""The factor by which the schedule leans to high noise, in training and in the checkpoints' schedulers
(https://arxiv.org/abs/2403.03206, section 5.3.2)."""

_AVERAGE_DECAY = 0.999
"""The decay of the moving average of the weights in a step."""


@dataclass(frozen=True)
class Training:
    """The length of a training, and its device."""

    output: Path
    device: torch.device
    denoiser_steps: int
    batch_size: int
    num_scenes: int
    seed: int
    autoencoder_steps: int = 0
    teacher: Path | None = None


def parse_arguments(description: str, **defaults: Any) -> Training:
    """The command line of a training; every number can be made small to try it on a CPU."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--output", type=Path, default=defaults["output"], help="folder of the checkpoint")
    parser.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    for name in ("autoencoder_steps", "denoiser_steps", "batch_size", "num_scenes"):
        if name in defaults:
            parser.add_argument("--" + name.replace("_", "-"), type=int, default=defaults[name], help="number of them")
    parser.add_argument("--seed", type=int, default=0)
    if "teacher" in defaults:
        parser.add_argument("--teacher", type=Path, default=defaults["teacher"], help="checkpoint to learn from")
    training = Training(**vars(parser.parse_args()))
    torch.manual_seed(training.seed)
    torch.set_float32_matmul_precision("high")
    return training


@dataclass
class Examples:
    """Scenes as drawings and captions, on the device.

    Attributes:
        layout: what to draw.
        token_ids: of one caption a scene, (scenes, tokens), int64.
        mask: 1 where there is a token, (scenes, tokens), int64.
    """

    layout: Layout
    token_ids: torch.Tensor
    mask: torch.Tensor

    def __len__(self) -> int:
        return len(self.token_ids)

    def draw(self, indices: torch.Tensor, side: int, frames: torch.Tensor | slice = slice(None)) -> torch.Tensor:
        """Return pictures or clips, or some of their frames, (scenes, 3, frames, side, side), -1 … 1."""
        layout = Layout(*(tensor[indices] for tensor in vars(self.layout).values()))
        layout.centre, layout.radius, layout.angle = (
            tensor[:, frames] for tensor in (layout.centre, layout.radius, layout.angle)
        )
        return draw(layout, side)


def make_examples(
    training: Training,
    make: Callable[[random.Random], Scene],
    num_frames: int,
    tokenizer: Any,
    describe: Callable[[Scene, random.Random], str] = random_caption,
) -> Examples:
    """Return random scenes, none of them held out, with a random caption each, which `describe` makes."""
    scenes = list(islice(training_scenes(make, training.seed), training.num_scenes))
    words = random.Random(training.seed)
    captions = [describe(scene, words) for scene in scenes]
    generator = torch.Generator(training.device).manual_seed(training.seed)
    layout = random_layout(scenes, num_frames, generator)
    return Examples(layout, *tokenize(tokenizer, captions, training.device))


def random_indices(examples: Examples, num_indices: int) -> torch.Tensor:
    """Return indices of random examples, on their device."""
    return torch.randint(len(examples), (num_indices,), device=examples.token_ids.device)


def shifted(time_uniform: torch.Tensor) -> torch.Tensor:
    """Return the noise levels (sigmas) of a flow-matching schedule, from evenly spaced times; both 0 … 1."""
    return FLOW_SHIFT * time_uniform / (1 + (FLOW_SHIFT - 1) * time_uniform)


def add_noise(latents: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Return latents at noise level sigma, (items,); 1 is noise alone."""
    sigma = sigma.view(-1, *[1] * (latents.ndim - 1))
    return (1 - sigma) * latents + sigma * noise


def reconstruction_loss(decoded: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """Return the loss by which both autoencoders learn: absolute plus squared error, a scalar."""
    difference = decoded.float() - drawn
    return difference.abs().mean() + difference.square().mean()


def peak_signal_to_noise(decoded: torch.Tensor, drawn: torch.Tensor) -> float:
    """Return how near decoded pictures or clips, -1 … 1, are to the drawings, in dB."""
    return 10 * torch.log10(4 / (decoded.clamp(-1, 1) - drawn).square().mean()).item()


def fit(
    label: str, modules: Sequence[nn.Module], loss: Callable[[], torch.Tensor], num_steps: int, learning_rate: float
) -> None:
    """Train modules in place with AdamW; they end with the moving average of their weights.

    On a GPU a whole step is one CUDA graph: networks this small would wait for Python between kernels.

    Args:
        label: for the lines printed.
        modules: on one device, float32; computed in bfloat16 where autocast does so.
        loss: draws a batch and gives its loss, by tensor operations alone, so that a graph can repeat it.
        num_steps: optimizer steps.
        learning_rate: its peak, after a short rise; it falls to zero along a cosine.
    """
    parameters = [parameter for module in modules for parameter in module.parameters()]
    averages = [parameter.detach().clone() for parameter in parameters]
    device = parameters[0].device
    is_cuda = device.type == "cuda"
    optimizer = torch.optim.AdamW(
        parameters,
        torch.tensor(learning_rate, device=device) if is_cuda else learning_rate,
        betas=(0.9, 0.98),
        weight_decay=0.01,
        capturable=is_cuda,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, num_steps, pct_start=0.06, cycle_momentum=False
    )

    def step() -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            value = loss()
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        torch._foreach_lerp_(averages, [parameter.detach() for parameter in parameters], 1 - _AVERAGE_DECAY)
        return value.detach()

    started = time.monotonic()
    repeat = _captured(step, schedule) if is_cuda else step
    for index in range(schedule.last_epoch, num_steps):
        value = repeat()
        schedule.step()
        if index % max(1, num_steps // 10) == 0 or index == num_steps - 1:
            seconds = time.monotonic() - started
            print(f"{label}: step {index + 1} of {num_steps}, loss {value.item():.4f}, {seconds:.0f} s", flush=True)
    with torch.no_grad():
        for parameter, average in zip(parameters, averages, strict=True):
            parameter.copy_(average)


def _captured(
    step: Callable[[], torch.Tensor], schedule: torch.optim.lr_scheduler.LRScheduler
) -> Callable[[], torch.Tensor]:
    """A function that repeats a step as a CUDA graph, after three ordinary ones in which it settles."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
            schedule.step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = step()

    def repeat() -> torch.Tensor:
        graph.replay()
        return value

    return repeat


def compile_blocks(blocks: nn.ModuleList) -> None:
    """Compile equal blocks, one after the other, on a GPU; a CPU would compile for longer than its few steps take."""
    for block in blocks:
        if next(block.parameters()).is_cuda:
            block.compile()
