"""Items that are rendered twice, by two actors, to check that the pixels are equal. No Ray and no torch here."""

from collections.abc import Hashable
from dataclasses import asdict

from rendermill.manifests.output.tuning_report import AuditDifference, AuditedRendering
from rendermill.manifests.request import Request
from rendermill.models.inputs import Inputs

_NUM_HASH_DIGITS = 13
"""The number of digits of the request hash that decide: 52 bits, which a float holds exactly."""


class Audits:
    """Keeps which actor rendered which of the chosen items, and the results of the second renderings."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, tuple[Request, AuditedRendering]] = {}
        self._taken: dict[Hashable, tuple[Request, AuditedRendering]] = {}
        self._inputs: dict[Hashable, Inputs] = {}
        self._renderers: dict[str, set[str]] = {}
        self.num_equal = 0
        self.differences: list[AuditDifference] = []

    def join(self, model: str, renderer: str) -> None:
        """Record that an actor renders for a model."""
        self._renderers.setdefault(model, set()).add(renderer)

    def num_renderers(self, model: str) -> int:
        """Return the number of actors that have rendered for a model."""
        return len(self._renderers.get(model, ()))

    def add_first(self, request: Request, rendering: AuditedRendering, inputs: Inputs | None = None) -> None:
        """Record the first rendering of an item, and keep its inputs for the second one."""
        self._waiting[request.request_hash] = request, rendering
        if inputs:
            self._inputs[request.request_hash] = inputs

    def take_inputs(self, request: Request) -> Inputs:
        """Return the inputs of an item that was taken, and forget them."""
        return self._inputs.pop(request.request_hash, {})

    def take(self, model: str, renderer: str) -> list[Request]:
        """Return what an actor should render again: items of other actors, or its own if it is the only actor."""
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

    def add_second(self, request_hash: str, rendering: AuditedRendering) -> None:
        """Record the second rendering of an item, and compare it with the first one."""
        if request_hash not in self._taken:  # taken before this actor died: counts as not rendered twice
            return
        request, first = self._taken.pop(request_hash)
        if first.pixel_sha256 == rendering.pixel_sha256:
            self.num_equal += 1
        else:
            difference = AuditDifference(request=asdict(request), first=first, second=rendering)
            self.differences.append(difference)


def is_chosen(request_hash: str, share: float) -> bool:
    """Return whether an item belongs to the share (0 … 1) that is audited: the same items in every run."""
    return int(request_hash[:_NUM_HASH_DIGITS], 16) < share * 16**_NUM_HASH_DIGITS
