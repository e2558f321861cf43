"""Parts of a checkpoint, and whether they can be loaded: a process with torch checks them for one without."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Weights:
    """A component with weights: its class and config, and the shapes of its tensors by name."""

    name: str
    library: str
    class_name: str
    config: Mapping[str, Any]
    shapes: Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Scheduler:
    """A scheduler: its class and config, and the changes of a job to that config."""

    class_name: str
    config: Mapping[str, Any]
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer: its class, the fingerprints of its files, and the folder that holds the files during the check."""

    name: str
    class_name: str
    fingerprints: Mapping[str, Any]
    folder: str = ""


@dataclass(frozen=True)
class Processor:
    """A processor of pictures for an encoder: its class, fingerprints and folder, as in `Tokenizer`."""

    name: str
    class_name: str
    fingerprints: Mapping[str, Any]
    folder: str = ""


Part = Weights | Scheduler | Tokenizer | Processor


def be_quiet() -> None:
    """Let this process print nothing, because the messages of libraries while they load are not for users."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def problems(parts: Sequence[Part]) -> list[str | None]:
    """Return for each part why it cannot be loaded, in words that begin with its name; None if it can."""
    return [_problem(part) for part in parts]


def _problem(part: Part) -> str | None:
    from rendermill.models.inspection import weights  # imports torch

    match part:
        case Weights(name, library, class_name, config, shapes):
            problem = weights.problem_of_weights(library, class_name, config, shapes)
        case Scheduler(class_name, config, changes):
            name, problem = "scheduler", weights.problem_of_scheduler(class_name, config, changes)
        case Tokenizer(name, class_name, _, folder):
            problem = weights.problem_of_tokenizer(class_name, folder)
        case Processor(name, class_name, _, folder):
            problem = weights.problem_of_processor(class_name, folder)
    return None if problem is None else f"{name}: {problem}"
