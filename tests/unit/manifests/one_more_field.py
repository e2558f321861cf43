"""Prints what derives from the definition of a request in a copy of the source that has a field `strength`, too.

python one_more_field.py COPY CHECKPOINT
"""

import json
import sys

sys.path.insert(0, sys.argv[1])

from pydantic import ValidationError

from docs import tables
from rendermill.jobs.config.job import Defaults
from rendermill.jobs.config.job_file import parse_job
from rendermill.manifests.errors import RowProblem
from rendermill.manifests.identity import request_hash
from rendermill.manifests.request import Request, hashed_fields
from rendermill.manifests.rows import RowValidator
from rendermill.manifests.schema import MANIFEST_COLUMNS, PROVENANCE_NAMES, RECORD_COLUMNS, ModelContract
from rendermill.models.capabilities import Capabilities

DEFAULTS = {"width": 64, "height": 32, "num_frames": 1, "num_inference_steps": 2, "guidance_scale": 4.5}
IMAGES = Capabilities("image", 32)
TAKES_STRENGTH = Capabilities("image", 32, arguments=frozenset({"strength"}))


def item(row, capabilities=TAKES_STRENGTH):
    contract = ModelContract(DEFAULTS, capabilities.problem, "00")
    return RowValidator({"model": contract}, "model", 0).item({"id": "a", "prompt": "a cat"} | row)


def problem(row, capabilities=TAKES_STRENGTH):
    try:
        item(row, capabilities)
    except RowProblem as error:
        return str(error)


def wrong_default():
    try:
        Defaults(strength="much")
    except ValidationError as error:
        return error.errors()[0]["loc"][0]


def default_in_the_job_file():
    model = {"checkpoint": sys.argv[2], "defaults": {"strength": 0.25}}
    job = parse_job({"manifest": "m", "output": "o", "models": {"model": model}}, "job.yaml")
    return job.models["model"].defaults.strength


def hashes_agree(row):
    (sample,) = item(row).samples
    asked = {"prompt": "a cat", "id": "a", "sample_index": 0, "seed": sample.seed, "model": "model"}
    known = {"negative_prompt": None, "fps": None, "guidance_scale_2": None, **DEFAULTS, **asked, **row}
    request = Request(**known, request_hash=sample.request_hash)
    record = {"strength": None, "path": "x"} | known | {"request_hash": "x"}
    assert request_hash(hashed_fields(record), "00") == request.request_hash
    return request_hash(known, "00") == request.request_hash


names = [column.name for column in RECORD_COLUMNS]
place = names.index("strength")
json.dump(
    {
        "manifest column": next(f"{c.name}: {c.type}" for c in MANIFEST_COLUMNS if c.name == "strength"),
        "record columns": names[place - 1 : place + 2],
        "documentation": all("| `strength` |" in tables.TABLES[name] for name in ("manifest", "record", "defaults")),
        "default in the job file": default_in_the_job_file(),
        "wrong default": wrong_default(),
        "provenance": "strength" in PROVENANCE_NAMES,
        "hash without it": hashes_agree({}),
        "hash with it": hashes_agree({"strength": 0.5}),
        "batch key": str(item({"strength": 0.5}).settled.shape),
        "batch key without it": str(item({}).settled.shape),
        "row that a model rejects": problem({"strength": 0.5}, IMAGES),
        "row of a wrong type": problem({"strength": "much"}),
    },
    sys.stdout,
)
