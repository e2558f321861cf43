"""The one definition of a request: everything else that knows a request's fields derives from the class `Request`.

To add an argument, add its line to `Request`. The columns of manifests, requests and records, the `defaults` of the job
file, the request hash, the provenance in files, the batch key and the tables in `docs/` follow. Models that take the
argument name it in their `models.capabilities.Capabilities`; every other model rejects rows that set it.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import partial
from operator import attrgetter
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc

from rendermill.manifests.inputs import identities, input_names
from rendermill.manifests.reader.kinds import COUNT, ID, INDEX, JSON_TEXT, NUM_SAMPLES, NUMBER, RATE, SEED, TEXT, Kind

_MAX_UNGUIDED = 1.0
"""The largest guidance scale at which classifier-free guidance has no effect."""


@dataclass(frozen=True)
class RequestField:
    """The definition of one field of a request.

    Attributes:
        kind: of its values.
        meaning: what it asks for, in the words of the documentation.
        recorded: what records hold, if that differs from `meaning`.
        given_by: `row or job file`: a row, or the job file if the row says nothing; `row`: only a row; `rendermill`.
        in_batch_key: whether items of one batch must have the same value.
        in_provenance: whether media files repeat it; not if the file itself shows it.
    """

    kind: Kind
    meaning: str
    recorded: str | None = None
    given_by: Literal["row or job file", "row", "rendermill"] = "row or job file"
    in_batch_key: bool = False
    in_provenance: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One sample to render, with every default filled in.

    A field that is added later has the default None. Null means "not asked for", and is left out of the request hash
    and the batch key, so that the hashes and the batch keys of existing rows stay as they are.
    """

    id: Annotated[
        str,
        RequestField(
            ID,
            "The item's name, unique in the manifest. Default: a hash of the row's content.",
            recorded="The item's id: the manifest's, else a hash of the row.",
            given_by="row",
        ),
    ]
    sample_index: Annotated[int, RequestField(INDEX, "The number of the sample, from 0.", given_by="rendermill")]
    model: Annotated[
        str,
        RequestField(
            TEXT,
            "A model of the job file. Default: its `default_model`.",
            recorded="The model's name in the job file.",
            given_by="row",
        ),
    ]
    prompt: Annotated[
        str,
        RequestField(
            TEXT, "What to render. Required; must not be empty.", recorded="As in the manifest.", given_by="row"
        ),
    ]
    negative_prompt: Annotated[
        str | None,
        RequestField(
            TEXT,
            "What to keep out; has no effect at a guidance scale of 1 or less.",
            recorded="As in the manifest or the job file; null: none.",
        ),
    ]
    seed: Annotated[
        int,
        RequestField(
            SEED,
            "0 … 2^63-1: the first sample's seed, to which each later sample adds 1. Default: derived from the id.",
            recorded="The sample's seed.",
            given_by="row",
        ),
    ]
    width: Annotated[int, RequestField(COUNT, "Pixels.", in_batch_key=True, in_provenance=False)]
    height: Annotated[int, RequestField(COUNT, "Pixels.", in_batch_key=True, in_provenance=False)]
    num_frames: Annotated[
        int,
        RequestField(
            COUNT,
            "Frames of a video; Wan renders 4k + 1 of them.",
            recorded="Frames of a video; 1 for an image.",
            in_batch_key=True,
            in_provenance=False,
        ),
    ]
    fps: Annotated[
        float | None,
        RequestField(
            RATE, "Frames per second of a video.", recorded="Frames per second; null for an image.", in_provenance=False
        ),
    ]
    num_inference_steps: Annotated[int, RequestField(COUNT, "Denoising steps.", in_batch_key=True)]
    guidance_scale: Annotated[
        float, RequestField(NUMBER, "Classifier-free guidance (Sprint: embedded guidance); 1 or less: none.")
    ]
    guidance_scale_2: Annotated[
        float | None, RequestField(NUMBER, "Guidance of Wan's low-noise expert; null: as `guidance_scale`.")
    ]
    arguments: Annotated[
        str | None,
        RequestField(
            JSON_TEXT,
            "Further arguments of the pipeline by name, as JSON; null: none.",
            given_by="rendermill",
            in_batch_key=True,
        ),
    ] = None
    inputs: Annotated[
        str | None,
        RequestField(
            JSON_TEXT,
            "Images and videos by the name of the pipeline's argument, as JSON: `url` and `sha256`; null: none.",
            given_by="rendermill",
        ),
    ] = None
    request_hash: Annotated[
        str,
        RequestField(
            TEXT, "Hash of everything that was asked for (see docs/reproducibility.md).", given_by="rendermill"
        ),
    ] = ""

    @property
    def is_guided(self) -> bool:
        """Whether classifier-free guidance has an effect, and doubles the work."""
        return is_guided(self.guidance_scale)

    @property
    def further_arguments(self) -> Mapping[str, Any]:
        """The further arguments of the pipeline that were asked for, by name."""
        further: dict[str, Any] = json.loads(self.arguments or "{}")
        return further

    @property
    def shape(self) -> "Shape":
        """The batch key: what items must share to be rendered in one batch."""
        return Shape._make((*_sizes(self), self.is_guided, _others(partial(getattr, self))))

    @classmethod
    def from_table(cls, table: pa.Table) -> "list[Request]":
        """Return the requests in the rows of a table that has all columns of a request, and perhaps others."""
        columns = [table[name].to_pylist() for name in FIELDS]
        return [cls(**dict(zip(FIELDS, row, strict=True))) for row in zip(*columns, strict=True)]


def is_guided(guidance_scale: float) -> bool:
    """Return whether classifier-free guidance has an effect at a scale."""
    return guidance_scale > _MAX_UNGUIDED


FIELDS: Mapping[str, RequestField] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(Request, include_extras=True).items()
}
"""The fields of a request by name, in the order of the columns."""

MANIFEST_FIELDS: Mapping[str, RequestField] = {
    **{name: field for name, field in FIELDS.items() if field.given_by != "rendermill"},
    "num_samples": RequestField(
        NUM_SAMPLES, "The number of samples to render, up to 10,000, each with its own seed. Default: 1."
    ),
}
"""The manifest's own columns by name."""

OPTIONAL_FIELDS = {name: field for name, field in FIELDS.items() if field.given_by == "row or job file"}
"""The fields that a row may leave to the job file, by name."""

BATCH_KEY = tuple(name for name, field in FIELDS.items() if field.in_batch_key)
"""The fields that items of one batch share, beside whether they are guided."""

_ADDED_LATER = frozenset(field.name for field in fields(Request) if field.default not in (MISSING, ""))


def hashed_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Select from a request's fields those that its hash is made of.

    A field that was added after the first version is left out if it is null; see `Request`. Of inputs, only their
    identity counts.

    Args:
        values: fields by name, perhaps not all of them, and perhaps others that do not count.
    """
    hashed = {
        name: values[name]
        for name in FIELDS
        if name in values and name != "request_hash" and not (name in _ADDED_LATER and values[name] is None)
    }
    return hashed | {"inputs": identities(hashed["inputs"])} if "inputs" in hashed else hashed


class Shape(NamedTuple):
    """The batch key of a request: what items must share to be rendered in one batch; sizes in pixels.

    Attributes:
        is_guided: whether classifier-free guidance doubles the work.
        others: the names and values of other fields in the batch key (`BATCH_KEY`), and as `inputs` the names of the
            inputs, `image,mask_image`; without those that are null.
    """

    width: int
    height: int
    num_frames: int
    num_inference_steps: int
    is_guided: bool
    others: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Shape":
        """Return the shape of a request or record with these fields, and perhaps others that do not count."""
        return cls.of_key({**values, "is_guided": is_guided(values["guidance_scale"])})

    @classmethod
    def of_key(cls, key: Mapping[str, Any]) -> "Shape":
        """Return the shape with these values of `BATCH_KEY` and this `is_guided`, such as a row of `batch_keys`."""
        return cls._make((*(key[name] for name in _SIZES), key["is_guided"], _others(key.get)))

    @property
    def work(self) -> int:
        """The work of rendering an item, comparable within one model: pixels times passes of the denoiser."""
        return self.num_pixels * self.num_inference_steps * (1 + self.is_guided)

    @property
    def num_pixels(self) -> int:
        """The number of pixels of all frames."""
        return self.width * self.height * self.num_frames

    def __str__(self) -> str:
        frames = f" x {self.num_frames} frames" if self.num_frames > 1 else ""
        guided = ", guided" if self.is_guided else ""
        others = "".join(f", {name}={json.dumps(value)}" for name, value in self.others)
        return f"{self.width} x {self.height}{frames}, {self.num_inference_steps} steps{guided}{others}"

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """Return the shape that `str` gave as text.

        Raises:
            ValueError: the text is not that of a shape.
        """
        match = _SHAPE.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a shape")
        width, height, num_frames, num_steps = (int(match[number] or 1) for number in range(1, 5))
        others = [(name, json.loads(value)) for name, value in _OTHER.findall(match["others"])]
        return cls(width, height, num_frames, num_steps, match["guided"] is not None, tuple(others))


_SIZES = Shape._fields[:-2]
_sizes = attrgetter(*_SIZES)
_OTHER_NAMES = tuple(name for name in BATCH_KEY if name not in _SIZES)


def _others(value_of: Callable[[str], Any]) -> tuple[tuple[str, Any], ...]:
    others = [(name, value) for name in _OTHER_NAMES if (value := value_of(name)) is not None]
    names = input_names(value_of("inputs"))
    return tuple(others if names is None else [*others, ("inputs", names)])


_OTHER = re.compile(r', (\w+)=("(?:[^"\\]|\\.)*"|[^", ]+)')
_SHAPE = re.compile(
    rf"(\d+) x (\d+)(?: x (\d+) frames)?, (\d+) steps(?P<guided>, guided)?(?P<others>(?:{_OTHER.pattern})*)"
)


def batch_keys(requests: pa.Table) -> pa.Table:
    """Return the batch key of each row of a table with a request's columns.

    Returns:
        The columns of `BATCH_KEY`, `is_guided`, and if some row has inputs, `inputs`: their names, a list as JSON.
    """
    guided = pc.greater(requests["guidance_scale"], _MAX_UNGUIDED)
    keys = requests.select([*BATCH_KEY]).append_column("is_guided", guided)
    inputs = requests["inputs"]
    if inputs.null_count == len(inputs):
        return keys
    names = [text and json.dumps(sorted(json.loads(text))) for text in inputs.to_pylist()]
    return keys.append_column("inputs", pa.array(names, pa.string()))
