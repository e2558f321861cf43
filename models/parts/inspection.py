"""What a process with torch finds out of checkpoints, before anything is loaded, for one that has no torch."""

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
    """A scheduler: its class and config, and what a job changes of that."""

    class_name: str
    config: Mapping[str, Any]
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer: its class, the fingerprints of its files, and the folder that holds these while it is inspected."""

    name: str
    class_name: str
    fingerprints: Mapping[str, Any]
    folder: str = ""


Part = Weights | Scheduler | Tokenizer


def be_quiet() -> None:
    """Let this process print nothing: what the libraries say while they load is not for users."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def problems(parts: Sequence[Part]) -> list[str | None]:
    """For each part why it cannot be loaded, in words that begin with its name; None if it can."""
    return [_problem(part) for part in parts]


def _problem(part: Part) -> str | None:
    from rendermill.models.parts import weights  # imports torch

    match part:
        case Weights(name, library, class_name, config, shapes):
            problem = weights.problem_of_weights(library, class_name, config, shapes)
        case Scheduler(class_name, config, changes):
            name, problem = "scheduler", weights.problem_of_scheduler(class_name, config, changes)
        case Tokenizer(name, class_name, _, folder):
            problem = weights.problem_of_tokenizer(class_name, folder)
    return None if problem is None else f"{name}: {problem}"
