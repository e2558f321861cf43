"""Numbers that a pipeline derives from its components' configs, such as the factor of its VAE.

They are found in the source of the pipeline and computed from the configs, because importing a pipeline takes seconds.
Only sizes and their defaults come from here; if one cannot be found, the caller has a value that suits nearly all.
"""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rendermill.models.inspection import sources

Configs = Mapping[str, Mapping[str, Any]]

_OPERATIONS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}
_FUNCTIONS: Mapping[str, Callable[[Any], Any]] = {"len": len, "sum": sum, "int": int, "tuple": tuple, "max": max}
_LARGEST_EXPONENT = 16
_DEEPEST = 12


class _Unknown(Exception):
    """A value does not follow from the configs."""


class ConfigValues:
    """Computes what the source of a pipeline class says from the configs of a checkpoint."""

    def __init__(self, class_name: str, configs: Configs) -> None:
        self._class_name, self._configs = class_name, configs
        self._assigned: dict[str, list[ast.expr]] = {}
        for owner in sources.lineage(class_name):
            for node in ast.walk(owner):
                if isinstance(node, ast.Assign) and len(node.targets) == 1:
                    self._assigned.setdefault(ast.unparse(node.targets[0]), []).append(node.value)

    def attribute(self, *names: str) -> int | None:
        """Return the first of these attributes of the pipeline that is a positive whole number; None if none is."""
        for name in names:
            for value in self._assigned.get(f"self.{name}", ()):
                number = self._number(value)
                if number is not None:
                    return number
        return None

    def divisors(self, name: str) -> list[int]:
        """Return the numbers by which the pipeline wants an argument to be divisible, as its checks say."""
        found = []
        for owner in sources.lineage(self._class_name):
            for test in (node.test for node in ast.walk(owner) if isinstance(node, ast.If)):
                for node in ast.walk(test):
                    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and ast.unparse(node.left) == name:
                        found.append(self._number(node.right))
        return [number for number in found if number is not None]

    def default(self, name: str) -> int | None:
        """Return the value that `__call__` gives an argument if the caller gives none; None if it is not found."""
        call = sources.method(self._class_name, "__call__")
        for node in ast.walk(call) if call is not None else ():
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
                value = node.value
                if isinstance(value, ast.BoolOp) and isinstance(value.op, ast.Or) and len(value.values) == 2:
                    number = self._number(value.values[1])
                    if number is not None:
                        return number
        return None

    def _number(self, node: ast.expr) -> int | None:
        try:
            value = self._value(node, 0)
        except (_Unknown, TypeError, ValueError, ZeroDivisionError, LookupError, OverflowError):
            return None
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

    def _value(self, node: ast.expr, depth: int) -> Any:
        if depth > _DEEPEST:
            raise _Unknown
        match node:
            case ast.Constant(value):
                return value
            case ast.BinOp(left, op, right) if type(op) in _OPERATIONS:
                first, second = self._value(left, depth + 1), self._value(right, depth + 1)
                if isinstance(op, ast.Pow) and not 0 <= second <= _LARGEST_EXPONENT:
                    raise _Unknown
                return _OPERATIONS[type(op)](first, second)
            case ast.IfExp(_, body, orelse):  # nearly always: from the component if there is one, else the usual value
                try:
                    return self._value(body, depth + 1)
                except (_Unknown, TypeError, LookupError):
                    return self._value(orelse, depth + 1)
            case ast.Subscript(value, index):
                return self._value(value, depth + 1)[self._value(index, depth + 1)]
            case ast.Call(ast.Name(name), [argument]) if name in _FUNCTIONS:
                return _FUNCTIONS[name](self._value(argument, depth + 1))
            case ast.Name() | ast.Attribute():
                return self._named(ast.unparse(node), depth)
        raise _Unknown

    def _named(self, text: str, depth: int) -> Any:
        component, *rest = text.removeprefix("self.").split(".")
        if rest and self._configs.get(component, {}).get(rest[-1]) is not None:
            return self._configs[component][rest[-1]]
        for value in self._candidates(text):
            try:
                return self._value(value, depth + 1)
            except (_Unknown, TypeError, LookupError):
                continue
        raise _Unknown

    def _candidates(self, text: str) -> Iterator[ast.expr]:
        yield from self._assigned.get(text, ())
        constant = sources.constant(self._class_name, text)
        if constant is not None:
            yield constant
