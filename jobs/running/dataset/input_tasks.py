"""The step of a Dataset that reads the inputs of requests, ahead of the actors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from rendermill.actors.media.inputs.options import InputOptions
from rendermill.actors.services.guard import Guard
from rendermill.models.inputs import InputSpec


@dataclass(frozen=True)
class InputTasks:
    """Reads the inputs of one model's requests, in tasks beside its actors.

    The method imports `actors.media.inputs.step` itself, so that the driver needs none of the decoders' libraries.

    Attributes:
        specs: The inputs that the model takes, by name.
        guard: Finds the request over whose inputs a process dies.
    """

    specs: Mapping[str, InputSpec]
    options: InputOptions
    run_id: str
    guard: Guard

    def read(self, requests: pa.Table) -> Iterator[pa.Table]:
        """Fetch, check, decode and fit the inputs of a table of requests; see `InputStep.read` for the tables."""
        from rendermill.actors.media.inputs.sources.fetch import fetcher_of_this_process
        from rendermill.actors.media.inputs.step import InputStep

        fetcher = fetcher_of_this_process(self.options, self.run_id)
        return InputStep(self.specs, self.options, fetcher, self.guard).read(requests)
