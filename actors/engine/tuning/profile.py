"""The tuning profile of a model on a device: which batch sizes pay, fit and keep bits, its pace, its certificate."""

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import AfterValidator, Field

from rendermill.actors.engine.tuning.batch_sizer import Learned
from rendermill.actors.engine.tuning.certificate import Certificate
from rendermill.manifests.request import Shape


def _shape_as_text(text: str) -> str:
    if str(Shape.parse(text)) != text or Shape.parse(text).work <= 0:
        raise ValueError(f"{text!r} is no shape")
    return text


def _usable(learned: Learned) -> Learned:
    if learned.size < 1:
        raise ValueError(f"{learned.size} is no batch size")
    return learned


_ShapeAsText = Annotated[str, AfterValidator(_shape_as_text)]
_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass
class Profile:
    """The measurements of one model with its settings, on one kind of device with its library versions.

    Shapes of items are given as text (`manifests.schema.Shape`).

    Attributes:
        shapes: by shape of item, its batch size and how it was found.
        proven: by stage and shape of its inputs, the sizes that give the reference's bits.
        refuted: by stage and shape of its inputs, the smallest size that may give other bits.
        reasons: by stage and shape of its inputs, why that size may, as text.
        seconds_per_item: by shape of item, the recent time of an actor for an item, everything included
            (`actors.engine.stopwatch.pace_clock`).
        bytes_per_item: by shape of item, the mean size of the media file.
        start_up_seconds: the time from the start of rendering to the end of a model's first batch, without the time
            that its items take at their pace; None: unknown.
        certificate: what was tested of the seed and of arguments.
    """

    shapes: dict[_ShapeAsText, Annotated[Learned, AfterValidator(_usable)]] = field(default_factory=dict)
    proven: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    refuted: dict[str, dict[str, int]] = field(default_factory=dict)
    reasons: dict[str, dict[str, str]] = field(default_factory=dict)
    seconds_per_item: dict[_ShapeAsText, _Amount] = field(default_factory=dict)
    bytes_per_item: dict[_ShapeAsText, _Amount] = field(default_factory=dict)
    start_up_seconds: Annotated[float, Field(allow_inf_nan=False)] | None = None
    certificate: Certificate = field(default_factory=Certificate)

    def merge(self, other: "Profile") -> None:
        """Add what another actor measured."""
        for shape, learned in other.shapes.items():
            if shape not in self.shapes or learned.is_settled or not self.shapes[shape].is_settled:
                self.shapes[shape] = learned
        for stage, sizes in other.proven.items():
            self.proven.setdefault(stage, {}).update(sizes)
        for stage, size in other.refuted.items():
            self.refuted.setdefault(stage, {}).update(size)
        for stage, reasons in other.reasons.items():
            self.reasons.setdefault(stage, {}).update(reasons)
        self.seconds_per_item |= other.seconds_per_item
        self.bytes_per_item |= other.bytes_per_item
        self.start_up_seconds = other.start_up_seconds or self.start_up_seconds
        self.certificate = self.certificate.merged(other.certificate)

    def describe_proofs(self) -> list[str]:
        """Return a line for each stage and shape, such as "denoiser (32x32x32): 1, 2 give the same bits"."""
        lines = []
        for stage, shapes in self.proven.items():
            for shape, sizes in shapes.items():
                where = f"{stage} ({shape.strip()})" if shape.strip() else stage
                refuted = self.refuted.get(stage, {}).get(shape)
                reason = self.reasons.get(stage, {}).get(shape, "")
                same = (
                    f"{sizes[0]} is the reference"
                    if len(sizes) == 1
                    else f"{', '.join(map(str, sizes))} give the same bits"
                )
                lines.append(f"{where}: {same}" + (f"; {refuted} may not: {reason}" if refuted else ""))
        return lines
