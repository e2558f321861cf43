"""What the renderers of a run found out: a part of the run's file (`manifests.output.runs`)."""

from typing import Any, Literal

from pydantic import BaseModel, Field


class CertifiedStatement(BaseModel):
    """A statement of a model's certificate, such as "the seed decides".

    Attributes:
        reason: In words, what the verdict rests on.
    """

    statement: str
    verdict: Literal["proven", "refuted", "not tested"]
    reason: str

    def __str__(self) -> str:
        return f"{self.statement}: {self.verdict}: {self.reason}"


class ModelReport(BaseModel):
    """The findings of one model's renderers.

    Attributes:
        batch_sizes: The batch size in use, by shape of item (`str(manifests.schema.Shape)`).
        same_pixels: One sentence per stage and shape of its inputs: which batch sizes give the reference's bits.
        certificate: What was tested of the seed and of arguments.
        num_actors: The number of actors that the model has had.
        actors_at_work: The share (0 to 1) of the actors' time in which they worked; None before the first chunk.
        padding: The share (0 to 1) of the denoiser's slots that held padding.
        notes: How often each event worth telling happened, by its description.
    """

    batch_sizes: dict[str, int] = {}
    same_pixels: list[str] = []
    certificate: list[CertifiedStatement] = []
    num_actors: int = 0
    actors_at_work: float | None = None
    padding: float = 0.0
    notes: dict[str, int] = {}


class AuditedRendering(BaseModel):
    """One of the two renderings of an audited item.

    Attributes:
        renderer: The id of the actor.
    """

    renderer: str
    pixel_sha256: str
    batch_size: int


class AuditDifference(BaseModel):
    """An audited item whose two renderings differ.

    Attributes:
        request: The fields of a `manifests.schema.Request`, by name.
    """

    request: dict[str, Any]
    first: AuditedRendering
    second: AuditedRendering


class AuditReport(BaseModel):
    """The result of rendering some items twice.

    Attributes:
        num_equal: The number of items whose two renderings have the same pixels.
        num_different: The number of items whose two renderings differ.
        num_chosen: The number of finished items that the audit chose, rendered twice or not.
    """

    num_equal: int = 0
    num_different: int = 0
    different: list[AuditDifference] = []
    num_chosen: int = 0


class TuningReport(BaseModel):
    """The findings of a run's renderers.

    Attributes:
        models: One report per model that has had a renderer.
        profile_problems: Tuning profiles that cannot be read, each in a sentence.
        deaths: The number of worker processes that died with items in hand, by cause.
    """

    models: dict[str, ModelReport] = {}
    profile_problems: list[str] = []
    audit: AuditReport = Field(default_factory=AuditReport)
    deaths: dict[str, int] = {}
