"""Scenes of coloured shapes and the captions that describe them."""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLOURS = {
    "red": (215, 35, 40),
    "orange": (245, 135, 20),
    "yellow": (250, 220, 45),
    "green": (35, 150, 65),
    "blue": (40, 85, 215),
    "purple": (140, 60, 175),
    "white": (250, 250, 250),
    "black": (15, 15, 15),
}
"""The red, green and blue, 0 … 255, of every colour that a caption can name."""
SIZES = ("small", "large")
POSITIONS = ("on the left", "on the right", "at the top", "at the bottom", "in the center")
RELATIONS = ("left of", "right of", "above", "below")
MOTIONS = ("moves left", "moves right", "moves up", "moves down", "grows", "shrinks", "rotates", "stands still")

_SWAPPED = {"right of": "left of", "below": "above"}
_NUM_FOLDS = 5


@dataclass(frozen=True)
class Thing:
    """One coloured shape; its size and position are named only if it is alone in a picture."""

    colour: str
    shape: str
    size: str | None = None
    position: str | None = None


@dataclass(frozen=True)
class Scene:
    """A picture of one or two things, or a clip of one that moves."""

    things: tuple[Thing, ...]
    background: str
    relation: str | None = None
    motion: str | None = None

    @property
    def is_held_out(self) -> bool:
        """Whether training never sees this combination: one in five, whichever way a caption words it."""
        things, relation = self.things, self.relation
        if relation in _SWAPPED:
            things, relation = things[::-1], _SWAPPED[relation]
        key = repr((things, self.background, relation, self.motion))
        return hashlib.blake2b(key.encode()).digest()[0] % _NUM_FOLDS == 0


def random_picture(generator: random.Random) -> Scene:
    """Return a scene of one thing (in a third of the scenes) or two, on a background of another colour."""
    background = generator.choice(list(COLOURS))
    colours = [colour for colour in COLOURS if colour != background]
    if generator.random() < 1 / 3:
        thing = Thing(*(generator.choice(names) for names in (colours, SHAPES, SIZES, POSITIONS)))
        return Scene((thing,), background)
    first = second = Thing(generator.choice(colours), generator.choice(SHAPES))
    while second == first:
        second = Thing(generator.choice(colours), generator.choice(SHAPES))
    return Scene((first, second), background, relation=generator.choice(RELATIONS))


def random_clip(generator: random.Random) -> Scene:
    """Return a scene of one thing that moves; circles do not rotate, as nobody could see it."""
    background = generator.choice(list(COLOURS))
    thing = Thing(generator.choice([colour for colour in COLOURS if colour != background]), generator.choice(SHAPES))
    motions = [motion for motion in MOTIONS if (thing.shape, motion) != ("circle", "rotates")]
    return Scene((thing,), background, motion=generator.choice(motions))


def training_scenes(make: Callable[[random.Random], Scene], seed: int) -> Iterator[Scene]:
    """Yield random scenes without end, none of them held out."""
    generator = random.Random(seed)
    while True:
        scene = make(generator)
        if not scene.is_held_out:
            yield scene


def held_out_scenes(make: Callable[[random.Random], Scene], num_scenes: int, seed: int = 0) -> list[Scene]:
    """Scenes that training never sees: all different while there are more (of clips there are some 430), then again."""
    generator = random.Random(seed)
    candidates = (make(generator) for _ in range(1000 + 40 * num_scenes))
    distinct = dict.fromkeys(scene for scene in candidates if scene.is_held_out)
    return list(islice(cycle(distinct), num_scenes))


def caption(scene: Scene) -> str:
    """The caption that names everything, such as "a red circle left of a blue square on a white background"."""
    return " ".join([*_subject(scene), f"on a{_n(scene.background)} {scene.background} background"])


def random_caption(scene: Scene, generator: random.Random) -> str:
    """A caption to train on: mostly all of it, sometimes in other words, less of it, a single word, or nothing.

    What captions leave out, a negative prompt can name: the model has met it alone.
    """
    luck = generator.random()
    if luck < 0.1:
        return ""
    if luck < 0.2:
        thing = generator.choice(scene.things)
        words = [thing.colour, thing.shape, f"a {thing.shape}", f"{scene.background} background"]
        words += [word for word in (thing.size, thing.position, scene.relation, scene.motion) if word]
        return generator.choice(words)
    if luck < 0.4:
        return _partial_caption(scene, generator)
    if luck < 0.5:
        relation = scene.relation and {"left of": "to the left of", "right of": "to the right of"}.get(scene.relation)
        return " ".join(_subject(scene, relation)) + f", {scene.background} background"
    return caption(scene)


def _partial_caption(scene: Scene, generator: random.Random) -> str:
    def keep(word: str | None) -> str | None:
        return word if generator.random() < 0.5 else None

    things = tuple(Thing(keep(t.colour) or "", t.shape, keep(t.size), keep(t.position)) for t in scene.things)
    words = list(_subject(Scene(things, scene.background, scene.relation, keep(scene.motion))))
    if keep(scene.background):
        words.append(f"on a{_n(scene.background)} {scene.background} background")
    return " ".join(words)


def _subject(scene: Scene, relation: str | None = None) -> Iterator[str]:
    for index, thing in enumerate(scene.things):
        if index:
            yield relation or scene.relation or "and"
        words = " ".join(word for word in (thing.size, thing.colour, thing.shape) if word)
        yield f"a{_n(words)} {words}"
        if thing.position:
            yield thing.position
    if scene.motion:
        yield scene.motion


def _n(word: str) -> str:
    return "n" if word.startswith("o") else ""


def vocabulary_text() -> str:
    """Return captions that hold every word of every caption, for a tokenizer to learn."""
    generator = random.Random(0)
    scenes = [make(generator) for make in (random_picture, random_clip) for _ in range(2000)]
    return "\n".join(random_caption(scene, generator) for scene in scenes)
