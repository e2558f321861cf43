"""Shares the code that `torch.compile` makes between actors and runs, so that only the first of them waits for it."""

from dataclasses import dataclass, field
from typing import Any

import ray
import torch

from rendermill.actors.spec import RendererSpec
from rendermill.manifests.errors import one_line
from rendermill.manifests.identity import blake2b_128


@dataclass
class SharedCompilation:
    """One renderer's part: takes what others compiled, and gives what it compiled itself.

    The artifacts are executable code. So only those who may start jobs should be able to write to a profile folder.
    """

    spec: RendererSpec
    _known: set[str] = field(default_factory=set)
    _given: str | None = None

    def take(self) -> None:
        """Load what is stored for this model, device and versions. Call this before anything is compiled."""
        for artifacts in ray.get(self.spec.findings.compiled.remote(self.spec.model_name)):
            try:
                info = torch.compiler.load_cache_artifacts(artifacts)
            except Exception as error:  # only time is lost, and torch raises whatever its caches do
                text = f"what an earlier run compiled cannot be used: {one_line(error)}"
                self.spec.findings.note.remote(self.spec.model_name, text)
            else:
                self._known |= _keys(info) if info is not None else set()

    def give(self) -> None:
        """Store what this process has compiled, if any of it is new."""
        made = torch.compiler.save_cache_artifacts()
        if made is None or _keys(made[1]) <= self._known:
            return
        name = blake2b_128(sorted(_keys(made[1]))).hex()
        self.spec.findings.keep_compiled.remote(self.spec.model_name, name, made[0], self._given)
        self._known |= _keys(made[1])
        self._given = name


def _keys(info: Any) -> set[str]:
    return {f"{kind} {key}" for kind, keys in info.artifacts.items() for key in keys}
