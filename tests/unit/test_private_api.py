"""Every private name of a library that the packages use stands in this list, in one file each, and still exists.

Private names may change with any release, so each one is used in one place, and this test fails first.
"""

import ast
import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.commands import ROOT

PACKAGES = ("actors", "jobs", "manifests", "models")
DOCUMENTED = {"_asdict", "_fields", "_make", "_replace", "_exit"}
"""Public in spite of their names: of named tuples and `os`."""

USES = {
    "_private": "ray.autoscaler._private.aws.node_provider:AWSNodeProvider",
    "_internal": "ray.data._internal.execution.streaming_executor:StreamingExecutor",
    "_dataset_id": "ray.data._internal.execution.streaming_executor:StreamingExecutor",
    "_topology": "ray.data._internal.execution.streaming_executor:StreamingExecutor",
    "_cat_file": "fsspec.asyn:AsyncFileSystem",
    "_logical_plan": "ray.data:Dataset",
    "_execution_device": "diffusers:DiffusionPipeline",
    "_all_hooks": "diffusers:DiffusionPipeline",
    "_get_gemma_prompt_embeds": "diffusers:SanaPipeline",
    "_text_preprocessing": "diffusers:SanaPipeline",
    "_get_t5_prompt_embeds": "diffusers:WanPipeline",
    "_fix_state_dict_keys_on_load": "diffusers:ModelMixin",
    "_keys_to_ignore_on_load_unexpected": "diffusers:ModelMixin",
    "_repeated_blocks": "diffusers:ModelMixin",
    "_compiled_call_impl": "torch.nn:Module",
    "_dynamo": "torch._dynamo:config.recompile_limit",
    "_inductor": "torch._inductor:config.deterministic",
    "_python_dispatch": "torch.utils._python_dispatch:TorchDispatchMode",
    "_pytree": "torch.utils._pytree:tree_flatten",
    "_schema": "torch:ops.aten.addmm.default",
}
"""The private names, each with what it belongs to: a public or private object, after its module."""

IN_SEVERAL_FILES = {"_execution_device"}
"""Each family asks for the device of its pipeline."""


def test_each_private_name_is_listed_and_used_in_one_file() -> None:
    files: dict[str, set[str]] = {}
    for file in (file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        for name in private_names(ast.parse(file.read_text())):
            files.setdefault(name, set()).add(str(file.relative_to(ROOT)))
    assert files.keys() == USES.keys()
    scattered = {name: used_in for name, used_in in files.items() if len(used_in) > 1}
    assert scattered.keys() <= IN_SEVERAL_FILES, scattered


@pytest.mark.parametrize("name", USES)
def test_the_installed_library_has_the_name(name: str) -> None:
    module, _, path = USES[name].partition(":")
    owner: Any = importlib.import_module(module)
    for part in path.split("."):
        owner = getattr(owner, part)
    if name not in module.split(".") and not hasattr(owner, name):  # then it is an attribute of instances
        assert f".{name}" in inspect.getsource(owner), f"{USES[name]} has no {name} any more"


def private_names(tree: ast.Module) -> Iterator[str]:
    """The private names of others that a module uses: parts of imported modules, attributes, and text in `getattr`."""
    own = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_own(node)}
    own |= {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    own |= {node.target.id for node in ast.walk(tree) if isinstance(node, ast.AnnAssign) if hasattr(node.target, "id")}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.Attribute) and not is_own(node):
            names = [node.attr]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "setattr"):
            names = [str(getattr(node.args[1], "value", ""))]
        else:
            continue
        yield from (name for name in names if is_private(name) and name not in own | DOCUMENTED)


def is_own(node: ast.Attribute) -> bool:
    """Whether an attribute belongs to the object whose method uses it."""
    owner = node.value.func if isinstance(node.value, ast.Call) else node.value
    return getattr(owner, "id", "") in ("self", "cls", "super")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"
