"""The source of the pipelines of the installed diffusers, read without importing it, because torch comes with it."""

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_LEFT_OUT = ("pipeline_flax_", "pipeline_onnx_", "pipeline_stable_diffusion_onnx", "onnx_utils")


@cache
def pipeline_classes() -> dict[str, Path]:
    """Return the pipeline classes of diffusers by name, with the files that define them."""
    return {
        line[len("class ") :].partition("(")[0]: file
        for file in _files()
        for line in file.read_text().splitlines()
        if line.startswith("class ") and "Pipeline(" in line
    }


@cache
def pipeline_modules() -> frozenset[str]:
    """Return the names by which a `model_index.json` names diffusers' modules of pipelines, such as `ltx2`."""
    return frozenset(path.name for path in _folder().iterdir() if path.is_dir() and not path.name.startswith("_"))


@cache
def definition(class_name: str) -> ast.ClassDef | None:
    """Return the definition of a pipeline class; None if diffusers has none of this name."""
    file = pipeline_classes().get(class_name)
    if file is None:
        return None
    tree = _tree(file)
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)


def lineage(class_name: str) -> Iterator[ast.ClassDef]:
    """Yield the definitions of a pipeline class and of the pipeline classes that it derives from."""
    own = definition(class_name)
    if own is None:
        return
    yield own
    for base in own.bases:
        if isinstance(base, ast.Name) and base.id != "DiffusionPipeline":
            yield from lineage(base.id)


def method(class_name: str, name: str) -> ast.FunctionDef | None:
    """Return the definition of a method of a pipeline class, perhaps inherited; None if there is none."""
    for owner in lineage(class_name):
        for node in owner.body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                return node
    return None


def constant(class_name: str, name: str) -> ast.expr | None:
    """Return the value of a constant of the module that defines a pipeline class; None if there is none."""
    for node in _tree(pipeline_classes()[class_name]).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]:
            return node.value
    return None


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def _files() -> list[Path]:
    return [
        file
        for file in sorted(_folder().rglob("pipeline_*.py"))
        if not file.name.startswith(_LEFT_OUT) and "deprecated" not in file.parts
    ]


def _folder() -> Path:
    spec = find_spec("diffusers")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("diffusers")
    return Path(spec.origin).parent / "pipelines"
