"""Judges what a picture or clip of coloured shapes shows, from its pixels alone, and whether its caption is right."""

from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np
import torch
from scipy import ndimage

from shapes.drawing import distance_to
from shapes.scenes import COLOURS, SHAPES, Scene, Thing

UNKNOWN = "unknown"
_PALETTE = np.array(list(COLOURS.values()), np.float32)
_MAX_COLOUR_DISTANCE = 70.0
"""The largest distance in RGB units between a thing's colour and the palette's; the palette's own are 82 apart."""
_MIN_OVERLAP = 0.75
"""The smallest intersection over union of a thing and the shape that fits it best."""
_MIN_AREA = 0.006
"""The smallest share of the picture that a thing covers; the smallest thing that is ever drawn covers 0.017."""
_SMALL_RADIUS = 0.165
_MIN_MOVE, _MIN_GROWTH, _MIN_TURN = 0.15, 1.35, 40.0
"""Sides of the picture, a ratio of radii, and degrees that make a motion."""
_SYMMETRY = {"circle": 0, "square": 90, "triangle": 120, "star": 72, "cross": 90}
_ANGLE_STEP = 6


@dataclass(frozen=True)
class Seen:
    """A thing found in a picture: centre and radius in sides of the picture, angle in degrees, clockwise."""

    colour: str
    shape: str
    x: float
    y: float
    radius: float
    angle: float = 0.0


def look(picture: np.ndarray, is_turned: bool = False) -> tuple[str, list[Seen]]:
    """The background's colour, and every thing.

    Args:
        picture: (side, side, 3), uint8.
        is_turned: whether to try angles other than upright.
    """
    pixels = picture.astype(np.float32)
    distances = np.linalg.norm(pixels[:, :, None] - _PALETTE, axis=-1)
    nearest = distances.argmin(-1)
    border = np.concatenate(
        [nearest[:2].ravel(), nearest[-2:].ravel(), nearest[:, :2].ravel(), nearest[:, -2:].ravel()]
    )
    background = Counter(border.tolist()).most_common(1)[0][0]
    names = list(COLOURS)
    found = []
    for colour in range(len(names)):
        if colour == background:
            continue
        cores, num_cores = ndimage.label(ndimage.binary_erosion(nearest == colour))
        is_nearer = distances[:, :, colour] < distances[:, :, background]
        for index in range(1, num_cores + 1):
            # erosion keeps soft edges, whose colours lie between two others, from counting as things
            is_core = cores == index
            mask = ndimage.binary_dilation(is_core, np.ones((3, 3)), iterations=2) & is_nearer
            if mask.mean() >= _MIN_AREA:
                is_pure = np.linalg.norm(pixels[is_core].mean(0) - _PALETTE[colour]) <= _MAX_COLOUR_DISTANCE
                found.append(_fit(mask, names[colour] if is_pure else UNKNOWN, is_turned))
    return names[background], found


def _fit(mask: np.ndarray, colour: str, is_turned: bool) -> Seen:
    side = mask.shape[0]
    y, x = ((coordinates + 0.5).mean() / side for coordinates in np.nonzero(mask))
    grid = (torch.arange(side, dtype=torch.float32) + 0.5) / side
    best, best_overlap = Seen(colour, UNKNOWN, x, y, float(np.sqrt(mask.mean() / np.pi))), _MIN_OVERLAP
    for shape in SHAPES:
        radius = float(np.sqrt(mask.mean() / _unit_area(shape)))
        angles = np.arange(0, _SYMMETRY[shape] if is_turned else 1, _ANGLE_STEP) if _SYMMETRY[shape] else np.zeros(1)
        template = distance_to(
            shape,
            ((grid - x) / radius)[None, None],
            ((grid - y) / radius)[None, :, None],
            torch.tensor(np.radians(angles), dtype=torch.float32)[:, None, None],
        ).numpy()
        inside = template < 0
        overlaps = (inside & mask).sum((1, 2)) / (inside | mask).sum((1, 2))
        if overlaps.max() > best_overlap:
            best_overlap = overlaps.max()
            best = Seen(colour, shape, x, y, radius, float(angles[overlaps.argmax()]))
    return best


@cache
def _unit_area(shape: str) -> float:
    axis = torch.linspace(-1.5, 1.5, 1001)
    distance = distance_to(shape, axis[None], axis[:, None], torch.tensor(0.0))
    return float((distance < 0).float().mean()) * 9


def position(seen: Seen) -> str:
    """Return the place of a thing in the picture, in a caption's words."""
    dx, dy = seen.x - 0.5, seen.y - 0.5
    if max(abs(dx), abs(dy)) < 0.12:
        return "in the center"
    if abs(dx) > abs(dy):
        return "on the left" if dx < 0 else "on the right"
    return "at the top" if dy < 0 else "at the bottom"


def relation(first: Seen, second: Seen) -> str:
    """Return the relation of the first thing to the second, in a caption's words."""
    dx, dy = first.x - second.x, first.y - second.y
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def watch(clip: np.ndarray) -> Scene | None:
    """The scene that a clip shows; None where a frame has no thing, or more than one.

    Args:
        clip: (frames, side, side, 3), uint8.
    """
    views = [look(frame, is_turned=True) for frame in clip]
    if any(len(things) != 1 for _, things in views):
        return None
    track = [things[0] for _, things in views]
    common = {name: Counter(getattr(seen, name) for seen in track).most_common(1)[0][0] for name in ("colour", "shape")}
    background = Counter(name for name, _ in views).most_common(1)[0][0]
    return Scene((Thing(**common),), background, motion=_motion(track, common["shape"]))


def _motion(track: list[Seen], shape: str) -> str:
    start, end = track[:3], track[-3:]
    dx, dy = (float(np.mean([getattr(s, n) for s in end]) - np.mean([getattr(s, n) for s in start])) for n in "xy")
    growth = float(np.mean([s.radius for s in end]) / np.mean([s.radius for s in start]))
    if max(abs(dx), abs(dy)) >= _MIN_MOVE:
        if abs(dx) > abs(dy):
            return "moves left" if dx < 0 else "moves right"
        return "moves up" if dy < 0 else "moves down"
    if growth >= _MIN_GROWTH or growth <= 1 / _MIN_GROWTH:
        return "grows" if growth > 1 else "shrinks"
    angles = [seen.angle for seen in track if seen.shape == shape]
    period = _SYMMETRY.get(shape)
    if period and len(angles) > 1:
        turn = np.unwrap(angles, period=period)
        if turn[-1] - turn[0] >= _MIN_TURN:
            return "rotates"
    return "stands still"


def compare(scene: Scene, frames: np.ndarray) -> dict[str, bool]:
    """Return, for every attribute that the scene's caption names, whether the pixels show it.

    Args:
        scene: what was asked for.
        frames: a picture as (1, side, side, 3) or a clip as (frames, side, side, 3), uint8.
    """
    if scene.motion:
        seen = watch(frames)
        if seen is None:
            return dict.fromkeys(("number", "shape", "colour", "background", "motion"), False)
        return {
            "number": True,
            "shape": seen.things[0].shape == scene.things[0].shape,
            "colour": seen.things[0].colour == scene.things[0].colour,
            "background": seen.background == scene.background,
            "motion": seen.motion == scene.motion,
        }
    background, things = look(frames[0])
    named = _compare_things(scene, tuple(Seen(UNKNOWN, UNKNOWN, 0, 0, 0) for _ in scene.things))
    if len(things) != len(scene.things):
        return {"number": False} | dict.fromkeys(named, False) | {"background": background == scene.background}

    def likeness(order: tuple[Seen, ...]) -> tuple[int, int]:
        pairs = list(zip(scene.things, order, strict=True))
        num_alike = sum((thing.colour == seen.colour) + (thing.shape == seen.shape) for thing, seen in pairs)
        return num_alike, sum(_compare_things(scene, order).values())

    order = max(permutations(things), key=likeness)
    return {"number": True} | _compare_things(scene, order) | {"background": background == scene.background}


def _compare_things(scene: Scene, order: tuple[Seen, ...]) -> dict[str, bool]:
    pairs = list(zip(scene.things, order, strict=True))
    verdict = {
        "shape": all(thing.shape == seen.shape for thing, seen in pairs),
        "colour": all(thing.colour == seen.colour for thing, seen in pairs),
    }
    if scene.relation:
        verdict["relation"] = relation(*order) == scene.relation
    thing, seen = pairs[0]
    if thing.size:
        verdict["size"] = ("small" if seen.radius < _SMALL_RADIUS else "large") == thing.size
    if thing.position:
        verdict["position"] = position(seen) == thing.position
    return verdict
