"""Items that are drawn twice, by two actors, to see that they come out the same. Pure decisions, no torch."""

from collections.abc import Hashable
from dataclasses import dataclass

from rendermill.manifests.schema import Request

_NUM_HASH_DIGITS = 13
"""The digits of the request hash by which items are chosen: 52 bits, as many as a float holds exactly."""


@dataclass(frozen=True)
class Drawn:
    """One drawing of an item; `renderer` is the id of the actor."""

    renderer: str
    pixel_sha256: str
    batch_size: int


@dataclass(frozen=True)
class Difference:
    """Two drawings of an item that should be equal and are not."""

    request: Request
    first: Drawn
    second: Drawn


class Audits:
    """Who drew which of the chosen items, and what came of the second drawing."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, tuple[Request, Drawn]] = {}
        self._taken: dict[Hashable, tuple[Request, Drawn]] = {}
        self._renderers: dict[str, set[str]] = {}
        self.num_equal = 0
        self.differences: list[Difference] = []

    def join(self, model: str, renderer: str) -> None:
        """A model has one more actor."""
        self._renderers.setdefault(model, set()).add(renderer)

    def num_renderers(self, model: str) -> int:
        """How many actors a model has had."""
        return len(self._renderers.get(model, ()))

    def add(self, request: Request, drawn: Drawn) -> None:
        """An item was drawn for the first time."""
        self._waiting[request.request_hash] = request, drawn

    def take(self, model: str, renderer: str) -> list[Request]:
        """What an actor should draw again: what others drew, or its own where it is the model's only one."""
        is_alone = self._renderers.get(model, set()) <= {renderer}
        taken = {
            key: pair
            for key, pair in self._waiting.items()
            if pair[0].model == model and (is_alone or pair[1].renderer != renderer)
        }
        self._taken |= taken
        for key in taken:
            del self._waiting[key]
        return [request for request, _ in taken.values()]

    def second(self, request_hash: str, drawn: Drawn) -> None:
        """An item was drawn again."""
        if request_hash not in self._taken:  # of before the death of who keeps this: counts as not drawn twice
            return
        request, first = self._taken.pop(request_hash)
        if first.pixel_sha256 == drawn.pixel_sha256:
            self.num_equal += 1
        else:
            self.differences.append(Difference(request, first, drawn))


def is_chosen(request_hash: str, share: float) -> bool:
    """Whether an item belongs to the share (0 … 1) that is audited: the same items in every run."""
    return int(request_hash[:_NUM_HASH_DIGITS], 16) < share * 16**_NUM_HASH_DIGITS
