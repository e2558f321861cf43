"""Rendering of scenes of coloured shapes, on any torch device and thousands at a time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from shapes.scenes import COLOURS, MOTIONS, SHAPES, SIZES, Scene

_DIRECTIONS = {
    "on the left": (-1, 0),
    "on the right": (1, 0),
    "at the top": (0, -1),
    "at the bottom": (0, 1),
    "in the center": (0, 0),
    "left of": (-1, 0),
    "right of": (1, 0),
    "above": (0, -1),
    "below": (0, 1),
    "moves left": (-1, 0),
    "moves right": (1, 0),
    "moves up": (0, -1),
    "moves down": (0, 1),
}
_MARGIN = 1.25
"""The radii between a thing's centre and the edge of the picture: what the widest shape needs."""
_ROTATION = math.radians(120)


@dataclass
class Layout:
    """The places of everything; the unit is the picture's side, y points down, angles are clockwise radians.

    Attributes:
        shape: index into SHAPES, -1 for a thing that is not there, (scenes, things).
        colour: red, green, blue in 0 … 1, (scenes, things, 3).
        background: likewise, (scenes, 3).
        centre: x and y, (scenes, frames, things, 2).
        radius: (scenes, frames, things); the circle's own, `signed_distance` says how far other shapes reach.
        angle: (scenes, frames, things).
    """

    shape: torch.Tensor
    colour: torch.Tensor
    background: torch.Tensor
    centre: torch.Tensor
    radius: torch.Tensor
    angle: torch.Tensor


def random_layout(scenes: Sequence[Scene], num_frames: int, generator: torch.Generator) -> Layout:
    """Draw at random what the captions leave open: exact places and sizes.

    Args:
        scenes: all pictures (`num_frames` 1) or all clips.
        num_frames: frames a clip.
        generator: on the device to draw on.
    """
    device = generator.device

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(len(scenes), *shape, generator=generator, device=device) * (high - low) + low

    def column(values: list[object], names: Sequence[str]) -> torch.Tensor:
        codes = [names.index(value) if value is not None else -1 for value in values]
        return torch.tensor(codes, device=device)

    palette = torch.tensor(list(COLOURS.values()), device=device) / 255
    colours = list(COLOURS)
    num_slots = 2 if num_frames == 1 else 1
    things = [[s.things[i] if i < len(s.things) else None for s in scenes] for i in range(num_slots)]
    shape = torch.stack([column([thing and thing.shape for thing in slot], SHAPES) for slot in things], 1)
    colour = torch.stack([palette[column([t and t.colour for t in slot], colours)] for slot in things], 1)
    background = palette[column([scene.background for scene in scenes], colours)]
    progress = torch.linspace(-1, 1, num_frames, device=device)[:, None] if num_frames > 1 else None

    direction = torch.tensor(
        [_DIRECTIONS.get(s.relation or s.motion or s.things[0].position or "", (0, 0)) for s in scenes],
        device=device,
        dtype=torch.float32,
    )
    angle = torch.zeros(len(scenes), num_frames, len(things), device=device)
    if progress is not None:
        motion = column([scene.motion for scene in scenes], MOTIONS)[:, None]
        along = direction[:, None] * progress * uniform(0.2, 0.26, 1, 1)
        across = uniform(-0.1, 0.1, 1, 2)
        centre = 0.5 + along + across
        low, high = uniform(0.13, 0.16, 1), uniform(0.28, 0.32, 1)
        growth = low + (high - low) * (progress[:, 0] + 1) / 2
        radius = uniform(0.2, 0.24, 1).expand(-1, num_frames)
        radius = torch.where(motion == MOTIONS.index("grows"), growth, radius)
        radius = torch.where(motion == MOTIONS.index("shrinks"), growth.flip(1), radius)
        rotates = motion == MOTIONS.index("rotates")
        radius = torch.where(rotates, radius + 0.04, radius)[..., None]
        angle = (rotates * _ROTATION * (progress[:, 0] + 1) / 2)[..., None]
        centre = centre[:, :, None]
    else:
        is_alone = (shape[:, 1] < 0)[:, None, None]
        is_small = column([scene.things[0].size for scene in scenes], SIZES)[:, None, None] == 0
        alone = torch.where(is_small, uniform(0.1, 0.13, 1, 1), uniform(0.2, 0.25, 1, 1))
        radius = torch.where(is_alone, alone, uniform(0.11, 0.14, 1, 2))
        sides = torch.tensor([1.0, -1.0], device=device)[:, None]  # the second thing is opposite the first
        centre = 0.5 + direction[:, None, None] * sides * uniform(0.22, 0.26, 1, 2, 1) + uniform(-0.03, 0.03, 1, 2, 2)
    room = radius[..., None] * _MARGIN
    centre = torch.minimum(torch.maximum(centre, room), 1 - room)
    return Layout(shape, colour, background, centre, radius, angle)


def draw(layout: Layout, side: int) -> torch.Tensor:
    """Return pictures as (scenes, 3, frames, side, side), float32 in -1 … 1, with smooth edges."""
    pixels = (torch.arange(side, device=layout.radius.device) + 0.5) / side
    canvas = layout.background[:, None, None, None].expand(-1, layout.radius.shape[1], side, side, 3)
    for index in range(layout.shape.shape[1]):
        # (scenes, frames, height, width)
        x = pixels[None, None, None] - layout.centre[:, :, index, 0, None, None]
        y = pixels[None, None, :, None] - layout.centre[:, :, index, 1, None, None]
        radius = layout.radius[:, :, index, None, None]
        angle = layout.angle[:, :, index, None, None]
        shape = layout.shape[:, index, None, None, None]
        distance = signed_distance(shape, x / radius, y / radius, angle) * radius * side
        cover = ((0.5 - distance).clamp(0, 1) * (shape >= 0))[..., None]
        canvas = canvas + cover * (layout.colour[:, None, None, None, index] - canvas)
    return canvas.permute(0, 4, 1, 2, 3) * 2 - 1


def signed_distance(shape: torch.Tensor, x: torch.Tensor, y: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Call `distance_to` with a shape for every item: `shape` is an index into SHAPES, broadcast with the others."""
    result = distance_to(SHAPES[0], x, y, angle)
    for index, name in enumerate(SHAPES[1:], 1):
        result = torch.where(shape == index, distance_to(name, x, y, angle), result)
    return result


def distance_to(shape: str, x: torch.Tensor, y: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """The distance to a shape's outline, negative inside, in radii; far from the outline only a bound of it.

    Args:
        shape: one of SHAPES.
        x: to the right of the centre, in radii; broadcast with the others.
        y: below the centre, in radii.
        angle: clockwise, radians.
    """
    x, y = x * torch.cos(angle) + y * torch.sin(angle), y * torch.cos(angle) - x * torch.sin(angle)
    across, along = torch.maximum(x.abs(), y.abs()), torch.minimum(x.abs(), y.abs())
    match shape:
        case "circle":
            return torch.hypot(x, y) - 1
        case "square":
            return across - 0.87
        case "triangle":
            return torch.maximum(y, math.cos(math.pi / 6) * x.abs() - y / 2) - 0.62
        case "star":
            return _star(x, y)
        case _:
            return torch.maximum(across - 1.05, along - 0.38)


def _star(x: torch.Tensor, y: torch.Tensor, outer: float = 1.2, inner: float = 0.55) -> torch.Tensor:
    """Return a star of five points, one of them up: all ten edges are one edge, folded over."""
    tenth = math.pi / 5
    folded = torch.remainder(torch.atan2(x, -y) + tenth, 2 * tenth) - tenth
    length = torch.hypot(x, y)
    u, v = length * torch.cos(folded), length * torch.sin(folded).abs()
    edge_u, edge_v = inner * math.cos(tenth) - outer, inner * math.sin(tenth)
    return ((u - outer) * edge_v - v * edge_u) / math.hypot(edge_u, edge_v)
