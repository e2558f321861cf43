"""Checks of a scheduler's settings against its arguments, which are read from diffusers' source.

Importing a scheduler would take seconds, because torch comes with it. To add a check, extend `problem_of_value`.
"""

import ast
import math
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Optional, Union

from pydantic import ConfigDict, TypeAdapter, ValidationError

_POSITIVE = ("flow_shift", "shift", "num_train_timesteps", "solver_order", "sigma_data")
"""Arguments that must be greater than 0."""
_NAMES_OF_TYPES = {"Literal": Literal, "Optional": Optional, "Union": Union, "list": list, "tuple": tuple} | {
    "List": list, "Tuple": tuple, "dict": dict, "Dict": dict, "int": int, "float": float, "bool": bool, "str": str
}  # fmt: skip


@cache
def scheduler_arguments(class_name: str) -> Mapping[str, Any] | None:
    """Return the arguments of a scheduler by name, with their types; None if diffusers has no such class.

    A type that only torch or numpy knows becomes `Any`.
    """
    for file in sorted(_folder().glob("scheduling_*.py")):
        text = file.read_text()
        if f"class {class_name}(" in text:
            definition = next(
                node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef) and node.name == class_name
            )
            return dict(_arguments(definition))
    return None


def problem_of_value(name: str, type_: Any, value: Any) -> str | None:
    """Return why a value does not suit an argument of a scheduler, in words; None if it does.

    Args:
        name: of the argument.
        type_: of the argument, from `scheduler_arguments`.
        value: from the job file.
    """
    try:
        TypeAdapter(type_, config=ConfigDict(arbitrary_types_allowed=True, strict=True)).validate_python(value)
    except ValidationError as error:
        return str(error.errors()[0]["msg"]).removeprefix("Input ")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and not math.isfinite(value) and name != "lambda_min_clipped":  # whose default is -inf
        return "should be a finite number"
    if is_number and name in _POSITIVE and value <= 0:
        return "should be greater than 0"
    return None


def _folder() -> Path:
    spec = find_spec("diffusers")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("diffusers")
    return Path(spec.origin).parent / "schedulers"


def _arguments(definition: ast.ClassDef) -> Iterator[tuple[str, Any]]:
    functions = [node for node in definition.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    for function in functions:
        arguments = function.args.args[1:]
        defaults = [None] * (len(arguments) - len(function.args.defaults)) + function.args.defaults
        for argument, default in zip(arguments, defaults, strict=True):
            is_none = isinstance(default, ast.Constant) and default.value is None
            yield argument.arg, _type(argument.annotation, is_none)


def _type(annotation: ast.expr | None, has_default_none: bool) -> Any:
    text = "" if annotation is None else ast.unparse(annotation)
    if not text or text == "bool | None":  # diffusers annotates some numbers with it, too, such as `sigma_max`
        return Any
    try:
        known = eval(text, {"__builtins__": {}}, dict(_NAMES_OF_TYPES))  # noqa: S307
        return known | None if has_default_none else known
    except (NameError, TypeError, AttributeError, SyntaxError):
        return Any
