"""How a model is loaded and run. Importing this module needs no torch, so that planning is quick."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from rendermill.models.quantization.schemes import SCHEMES

if TYPE_CHECKING:
    SchemeName = str
else:
    SchemeName = Literal[tuple(SCHEMES)]

AttentionBackend = Literal[
    "native", "_native_cudnn", "_native_efficient", "_native_flash", "_native_math", "flex", "flash", "_flash_3", "sage"
]
"""The backends of diffusers that need no code from the Hub."""


def _share(value: Any) -> Any:
    if not isinstance(value, str) or not value.rstrip().endswith("%"):
        return value
    try:
        return float(value.rstrip().removesuffix("%")) / 100
    except ValueError as error:
        raise ValueError("should be a share such as 0.001 or 0.1 %") from error


Share = Annotated[
    float,
    BeforeValidator(_share),
    Field(ge=0, le=1),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "string", "pattern": "%$"}]}),
]
"""A number from 0 to 1, or a text such as `0.1 %`."""


def _interval(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[0] >= interval[1]:
        raise ValueError("should be two shares of the steps, the first one less than the second")
    return interval


class Speedups(BaseModel):
    """Settings that are faster and change pixels; docs/speed.md says what each gains and costs.

    Each affects every item by itself, so strict mode keeps its promise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    quantization: SchemeName | None = Field(
        None, description="Multiply in float8 within the denoiser's blocks; needs torchao and an H100, L40 or newer."
    )
    float32_matmul_precision: Literal["high", "medium"] | None = Field(
        None, description="As torch names it: `high` lets float32 products use TF32; null: `highest`."
    )
    attention_backend: AttentionBackend | None = Field(None, description="Wan: as diffusers names it.")
    guidance_interval: Annotated[tuple[Share, Share], AfterValidator(_interval)] | None = Field(
        None, description="The share of the steps, from and to, in which guidance is on: `[0.1, 0.7]`; null: all steps."
    )
    cache_interval: int | None = Field(
        None, ge=2, description="Compute every N-th step and forecast those in between; null: compute all steps."
    )

    def is_guided(self, step: int, num_steps: int) -> bool:
        """Return whether a step, 0 … num_steps - 1, is within the guidance interval."""
        first, last = self.guidance_interval or (0.0, 1.0)
        return first * num_steps <= step < last * num_steps


class Settings(BaseModel):
    """The settings with which a model is loaded and run; docs/job-file.md explains each.

    Attributes:
        dtype: the dtype of each component by name, and of the others as `default`; names of torch dtypes.
        compile: whether the denoiser's blocks and an image model's VAE decoder are compiled.
        reference_batch: in strict mode, the number of items in the forward passes whose bits count; None (`fast`): any.
        scheduler: changes to the scheduler's config.
        pipeline_arguments: arguments of the pipeline's `__call__` that are the same for every item.
        offload: diffusers' ways to keep weights in CPU memory while they are idle.
        vae_tiling: whether the VAE decodes in tiles.
        variant: of the weights, such as `fp16`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: Mapping[str, str]
    compile: bool
    reference_batch: int | None
    scheduler: Mapping[str, Any] = {}
    pipeline_arguments: Mapping[str, Any] = {}
    offload: Literal["none", "if_needed", "model", "sequential", "group"] = "none"
    vae_tiling: bool = False
    speedups: Speedups = Speedups()
    variant: str | None = None
