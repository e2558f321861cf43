"""Pipelines that are made of the components of another one."""

import inspect
from collections.abc import Callable

import diffusers


def of(build: Callable[[], diffusers.DiffusionPipeline], pipeline: str) -> Callable[[], diffusers.DiffusionPipeline]:
    """Return a function that makes a pipeline class of diffusers from the components of what `build` makes."""

    def made() -> diffusers.DiffusionPipeline:
        pipeline_class = getattr(diffusers, pipeline)
        taken = inspect.signature(pipeline_class.__init__).parameters
        components = {name: component for name, component in build().components.items() if name in taken}
        return pipeline_class(**components)

    return made
