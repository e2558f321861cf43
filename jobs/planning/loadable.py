"""Whether checkpoints can be loaded: asked of a process with torch, once for each, as the answer is remembered."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rendermill.actors.checkpoints.checkpoint import Checkpoint
from rendermill.actors.checkpoints.files import CACHE, open_files
from rendermill.actors.versions import versions
from rendermill.manifests.errors import UserError, one_line
from rendermill.manifests.identity import blake2b_128
from rendermill.models.inspection.parts import Part, Processor, Scheduler, Tokenizer, Weights, be_quiet, problems

_REMEMBERED = CACHE / "loadable"


def check_loadable(checkpoints: Mapping[str, Checkpoint], schedulers: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise a `UserError` where a model's components are not what their classes load.

    Args:
        checkpoints: by model.
        schedulers: by model, what the job changes of the scheduler's config.
    """
    parts = {name: parts_of(checkpoint, schedulers[name]) for name, checkpoint in checkpoints.items()}
    answers = _answers([(part, checkpoints[name]) for name, own in parts.items() for part in own])
    for name, own in parts.items():
        for part in own:
            problem = answers.get(_key(part))
            if problem:
                changes = isinstance(part, Scheduler) and part.changes
                keys = ("models", name, "scheduler" if changes else "checkpoint")
                raise UserError(one_line(Exception(problem)), keys, checkpoints[name].source)


def parts_of(checkpoint: Checkpoint, changes: Mapping[str, Any]) -> list[Part]:
    """The parts of a checkpoint that a process with torch can judge.

    Args:
        changes: of the scheduler's config.
    """
    model_index = checkpoint.configs["model_index"]
    parts: list[Part] = [
        Weights(
            name,
            component.library,
            component.class_name,
            component.config,
            {tensor: described.shape for tensor, described in component.tensors.items()},
        )
        for name, component in checkpoint.components.items()
        if not component.is_quantized
    ]
    if "scheduler" in checkpoint.configs:
        parts.append(Scheduler(model_index["scheduler"][1], checkpoint.configs["scheduler"], changes))
    for name, entry in model_index.items():
        kind = _kind_of_files(name, entry)
        if kind is not None:
            own = {file: mark for file, mark in checkpoint.fingerprints.items() if file.startswith(f"{name}/")}
            parts.append(kind(name, entry[1], own))
    return parts


def _kind_of_files(name: str, entry: Any) -> type[Tokenizer] | type[Processor] | None:
    """Return the kind of a component that is loaded from files without weights; None if it is of another kind."""
    if not isinstance(entry, list) or None in entry:
        return None
    if name.startswith("tokenizer"):
        return Tokenizer
    is_processor = entry[0] == "transformers" and entry[1].endswith(("Processor", "ProcessorPil", "FeatureExtractor"))
    return Processor if is_processor else None


def inspect(parts: Sequence[tuple[Part, Checkpoint]]) -> list[str | None]:
    """For each part of a checkpoint why it cannot be loaded, in words; None if it can. For a process with torch."""
    with TemporaryDirectory() as folder:
        return problems([_with_files(part, checkpoint, folder) for part, checkpoint in parts])


def _with_files(part: Part, checkpoint: Checkpoint, folder: str) -> Part:
    """A tokenizer or processor with its files in a local folder; other parts as they are."""
    if not isinstance(part, Tokenizer | Processor):
        return part
    files, _ = open_files(checkpoint.source, checkpoint.revision)
    place = Path(folder) / checkpoint.identity
    for name in part.fingerprints:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(files.read(name))
    return replace(part, folder=str(place / part.name))


def _answers(parts: Sequence[tuple[Part, Checkpoint]]) -> dict[str, str]:
    """The problems of parts by key, empty if there is none; without those that could not be found out."""
    by_key = {_key(part): (part, checkpoint) for part, checkpoint in parts}
    answers = dict.fromkeys((key for key in by_key if (_REMEMBERED / key).exists()), "")
    unknown = {key: pair for key, pair in by_key.items() if key not in answers}
    if not unknown:
        return answers
    try:
        with ProcessPoolExecutor(1, get_context("spawn"), be_quiet) as pool:
            found = pool.submit(inspect, list(unknown.values())).result()
    except (BrokenProcessPool, OSError):  # loading finds out
        return answers
    _REMEMBERED.mkdir(parents=True, exist_ok=True)
    for key, problem in zip(unknown, found, strict=True):
        answers[key] = problem or ""
        if not problem:
            (_REMEMBERED / key).touch()
    return answers


def _key(part: Part) -> str:
    content = json.loads(json.dumps(asdict(part)))
    return blake2b_128({"part": content, "kind": type(part).__name__, "versions": versions()}).hex()
