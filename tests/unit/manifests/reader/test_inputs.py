"""Images and videos of rows: the forms in which columns give them, their identity, and what rejects a row."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rendermill.manifests.errors import RowProblem
from rendermill.manifests.identity import request_hash
from rendermill.manifests.inputs import identities
from rendermill.manifests.reader.manifest import open_manifest
from rendermill.manifests.reader.read_rows import read_rows
from rendermill.manifests.request import Request, Shape, batch_keys, hashed_fields
from rendermill.manifests.rows import Item, RowValidator
from rendermill.manifests.schema import InputColumn, ModelContract
from rendermill.models.arguments import Argument

DEFAULTS = {"width": 64, "height": 32, "num_frames": 1, "num_inference_steps": 2, "guidance_scale": 1.0}
INPUTS = {"image": InputColumn(True, False), "references": InputColumn(False, True)}
EDITS = ModelContract(DEFAULTS, lambda _: None, "00", {"strength": Argument(float)}, {"strength": 0.5}, INPUTS)
TEXT_ALONE = ModelContract(DEFAULTS, lambda _: None, "00")
VALIDATOR = RowValidator({"edits": EDITS, "text": TEXT_ALONE}, "edits", 0)
PICTURE = b"a picture"
SHA256 = hashlib.sha256(PICTURE).hexdigest()
BINARY = pa.array([PICTURE])
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def items_of(
    folder: Path, column: pa.Array | None = None, validator: RowValidator = VALIDATOR, **others: Any
) -> list[Item]:
    columns = {"prompt": ["a cat"] * (1 if column is None else len(column)), **others}
    pq.write_table(pa.table(columns | ({} if column is None else {"image": column})), folder / "m.parquet")
    (row_group,) = open_manifest(str(folder)).with_own({"strength", "image_sha256"}, INPUTS).row_groups
    rows = list(read_rows(row_group))
    return [validator.item(row) for part in rows for row in part.identified(range(len(part.own)))]


def inputs_of(folder: Path, *arguments: Any, **others: Any) -> list[Any]:
    return [json.loads(item.inputs or "null") for item in items_of(folder, *arguments, **others)]


@pytest.mark.parametrize(
    ("column", "entry"),
    [
        (pa.array(["https://a.b/1.png"]), {"url": "https://a.b/1.png"}),
        (pa.array(["cats/./1.png"], pa.large_string()), {"url": "cats/1.png"}),
        (pa.array(["/data/1.png"]).dictionary_encode(), {"url": "/data/1.png"}),
        (BINARY, {"sha256": SHA256}),
        (BINARY.dictionary_encode(), {"sha256": SHA256}),
        (pa.array([{"bytes": PICTURE, "path": "x.png"}], STRUCT), {"sha256": SHA256}),
        (pa.array([{"bytes": None, "path": "cats/1.png"}], STRUCT), {"url": "cats/1.png"}),
        (pa.array([[PICTURE]]), {"sha256": SHA256}),
        (
            pa.array(["https://a.b/1.png?X-Amz-Signature=abc"]),
            {"url": "https://a.b/1.png?X-Amz-Signature=***", "place": "https://a.b/1.png?X-Amz-Signature=abc"},
        ),
    ],
    ids=[
        "URL",
        "path",
        "dictionary",
        "bytes",
        "dictionary of bytes",
        "struct",
        "path in a struct",
        "list of one",
        "signed",
    ],
)
def test_every_form_of_an_input_is_read(tmp_path: Path, column: pa.Array, entry: dict[str, str]) -> None:
    assert inputs_of(tmp_path, column) == [{"image": entry}]


def test_paths_are_relative_to_the_folder_of_their_file_and_identities_to_that_of_the_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "cats" / "model=edits"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"prompt": ["a"] * 2, "image": ["1.png", "../../2.png"]}), folder / "m.parquet")
    manifest = open_manifest(str(tmp_path)).with_own((), INPUTS)
    (rows,) = read_rows(manifest.row_groups[0])
    assert [row["image"].url for row in rows.own] == ["cats/1.png", str(tmp_path.parent / "2.png")]
    assert manifest.folder == str(tmp_path)


def test_several_pictures_are_a_list_even_if_a_row_has_one(tmp_path: Path) -> None:
    column = pa.array([[PICTURE, b"other"], [PICTURE]])
    first, second = inputs_of(tmp_path, pa.array(["x.png"] * 2), references=column)
    assert first["references"][0] == {"sha256": SHA256}
    assert (len(first["references"]), second["references"]) == (2, [{"sha256": SHA256}])


@pytest.mark.parametrize(
    ("column", "others", "problem"),
    [
        (pa.nulls(1), {}, "image: missing; this model needs a URL, a path or the bytes of one in every row"),
        (pa.array([""]), {}, "image: missing"),
        (pa.array([[PICTURE, PICTURE]]), {}, "image: expected one, got a list of 2"),
        (pa.array([[None]], pa.list_(pa.string())), {}, "image: expected a URL, a path or bytes, got null"),
        (pa.array([3]), {}, "image: a column of type int64 holds no image"),
        (pa.array([{"url": "x"}]), {}, "image: a struct without a field `bytes` or `path`"),
        (BINARY, {"model": ["text"]}, "image: this model takes none; leave it empty"),
        (pa.nulls(1), {"model": ["text"], "strength": [0.5]}, "strength: this model takes none; leave it empty"),
        (BINARY, {"strength": ["much"]}, "strength: expected a number, got 'much' (str)"),
        (BINARY, {"image_sha256": ["x"]}, "image_sha256: expected 64 hex digits, got 'x'"),
        (BINARY, {"image_sha256": ["0" * 64]}, f"but that of the bytes is {SHA256}"),
    ],
)
def test_what_a_model_cannot_take_rejects_the_row(
    tmp_path: Path, column: pa.Array, others: dict[str, Any], problem: str
) -> None:
    with pytest.raises(RowProblem) as rejected:
        items_of(tmp_path, column, **others)
    assert problem in str(rejected.value)


def test_null_is_not_set(tmp_path: Path) -> None:
    (item,) = items_of(tmp_path, pa.nulls(1), model=["text"], strength=pa.nulls(1))
    assert (item.inputs, item.settled.fields["arguments"]) == (None, None)


def test_a_row_precedes_the_job_file(tmp_path: Path) -> None:
    ours, default = items_of(tmp_path, pa.array(["x", "x"]), strength=[0.75, None])
    assert [item.settled.fields["arguments"] for item in (ours, default)] == ['{"strength":0.75}', '{"strength":0.5}']


def hash_of(folder: Path, column: pa.Array, **others: Any) -> str:
    (item,) = items_of(folder, column, id=["a"], **others)
    return item.samples[0].request_hash


def test_the_hash_is_that_of_content_or_url(tmp_path: Path) -> None:
    struct = pa.array([{"bytes": PICTURE, "path": "x.png"}], STRUCT)
    url, signed = pa.array(["https://a.b/1.png?sig=x"]), pa.array(["https://a.b/1.png?sig=y"])
    assert hash_of(tmp_path, BINARY) == hash_of(tmp_path, struct)
    assert hash_of(tmp_path, url) == hash_of(tmp_path, signed)
    hashes = [hash_of(tmp_path, BINARY), hash_of(tmp_path, pa.array([b"other"])), hash_of(tmp_path, url)]
    hashes += [hash_of(tmp_path, url, image_sha256=[SHA256.upper()]), hash_of(tmp_path, BINARY, strength=[1])]
    assert len({*hashes}) == len(hashes)


@pytest.mark.parametrize("others", [{}, {"image_sha256": [SHA256]}])
@pytest.mark.parametrize("column", [pa.array(["https://a.b/1.png"]), BINARY], ids=["URL", "bytes"])
def test_the_hash_follows_from_the_record(tmp_path: Path, column: pa.Array, others: dict[str, Any]) -> None:
    (item,) = items_of(tmp_path, column, **others)
    (sample,) = item.samples
    request = Request(id=item.id, prompt=item.prompt, inputs=item.inputs, **item.settled.fields, **sample._asdict())
    read = {"image": {**json.loads(item.inputs or "")["image"], "sha256": SHA256, "width": 3, "height": 4}}
    record = {name: getattr(request, name) for name in Request.__slots__} | {"inputs": json.dumps(read)}
    assert request_hash(hashed_fields(record), "00") == sample.request_hash
    assert identities(json.dumps(read)) == identities(item.inputs or "")


def test_batches_share_arguments_and_the_names_of_inputs(tmp_path: Path) -> None:
    one, other = items_of(tmp_path, pa.array(["x", "y"]))
    (more,) = items_of(tmp_path, BINARY, references=[["z"]])
    assert one.settled.shape == other.settled.shape != more.settled.shape
    assert str(more.settled.shape).endswith('inputs="image,references"')
    assert Shape.parse(str(more.settled.shape)) == more.settled.shape
    fields = more.settled.fields | {"inputs": more.inputs}
    assert Shape.of(fields) == more.settled.shape
    (key,) = batch_keys(pa.Table.from_pylist([fields])).to_pylist()
    assert Shape.of_key(key) == more.settled.shape
