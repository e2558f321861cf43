"""Sums in another order, in one operation of a model and from a certain size on, as another kernel would compute them.

Trials of batch sizes (`models.parts.trials`) have to find them out.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rendermill.models.parts.operations import Operation


class Sabotage(TorchDispatchMode):
    """A context in which one operation splits its sums in two wherever it is called with these arguments.

    Args:
        operation: with the layouts of the larger batch, so that smaller ones are left alone.
    """

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self._function, self._shapes = operation.function, [layout.shape for layout in operation.layouts]
        self._split = SPLITS[operation.name]
        self.num_calls = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        names = [argument.name for argument in function._schema.arguments]
        given = dict(zip(names, args, strict=False)) | (kwargs or {})
        shapes = [tuple(value.shape) for value in given.values() if isinstance(value, torch.Tensor)]
        if function is not self._function or shapes != self._shapes:
            return function(*args, **(kwargs or {}))
        self.num_calls += 1
        return self._split(function, given)


def can_be_split(operation: Operation) -> bool:
    """Whether an operation is a sum of at least three terms that `Sabotage` can split."""
    if operation.name not in SPLITS:
        return False
    arguments = operation.arguments
    if operation.name in ("mm", "bmm"):
        return arguments["self"].shape[-1] > 2
    if operation.name == "convolution":
        return torch.Size(arguments["weight"].shape[1:]).numel() > 2
    if operation.name in ("mean", "sum", "linalg_vector_norm"):
        return arguments["self"].shape[arguments["dim"][0]] > 2
    return True


def _product(left: str, right: str) -> Callable[..., Any]:
    def split(function: Any, given: dict[str, Any]) -> torch.Tensor:
        one, other = given[left].float(), given[right].float()
        middle = one.shape[-1] // 3 or 1  # kernels may well sum in halves anyway
        result = one[..., :middle] @ other[..., :middle, :] + one[..., middle:] @ other[..., middle:, :]
        bias = given.get("input", given.get("self")) if left not in ("self", "input") else None
        return (result if bias is None else result + bias.float()).to(given[left].dtype)

    return split


def _convolution(function: Any, given: dict[str, Any]) -> torch.Tensor:
    weight = given["weight"]
    is_first = torch.zeros(weight[:1].numel(), dtype=torch.bool)
    is_first[: len(is_first) // 3] = True
    is_first = is_first.view(weight[:1].shape)
    wide = {name: value.float() if isinstance(value, torch.Tensor) else value for name, value in given.items()}
    first = function(**wide | {"weight": wide["weight"] * is_first, "bias": None})
    second = function(**wide | {"weight": wide["weight"] * ~is_first})
    return (first + second).to(weight.dtype)


def _attention(function: Any, given: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    query, key, value = (given[name].float() for name in ("query", "key", "value"))
    mask, middle = given.get("attn_mask"), key.shape[-2] // 3
    scores = query @ key.transpose(-1, -2) * (given.get("scale") or query.shape[-1] ** -0.5)
    if mask is not None:
        scores = scores + mask.float()
    weights = torch.exp(scores - scores.amax(-1, keepdim=True))
    first, second = (weights[..., part] for part in (slice(None, middle), slice(middle, None)))
    numerator = first @ value[..., :middle, :] + second @ value[..., middle:, :]
    result = numerator / (first.sum(-1, keepdim=True) + second.sum(-1, keepdim=True))
    _, logarithms = function(**given)[:2]
    return result.to(given["query"].dtype), logarithms


def _in_two(tensor: torch.Tensor, dimension: int) -> torch.Tensor:
    """The sum over a dimension, which is kept, of its first third and its rest."""
    middle = tensor.shape[dimension] // 3
    first = tensor.narrow(dimension, 0, middle).sum(dimension, keepdim=True)
    return first + tensor.narrow(dimension, middle, tensor.shape[dimension] - middle).sum(dimension, keepdim=True)


def _layer_norm(function: Any, given: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    wide = given["input"].float()
    mean = _in_two(wide, -1) / wide.shape[-1]
    rstd = torch.rsqrt(_in_two((wide - mean) ** 2, -1) / wide.shape[-1] + given["eps"])
    result = (wide - mean) * rstd
    if given.get("weight") is not None:
        result = result * given["weight"].float()
    if given.get("bias") is not None:
        result = result + given["bias"].float()
    return tuple(tensor.to(given["input"].dtype) for tensor in (result, mean, rstd))


def _over_dimension(finish: Callable[[torch.Tensor, int], torch.Tensor], square: bool = False) -> Callable[..., Any]:
    def split(function: Any, given: dict[str, Any]) -> torch.Tensor:
        wide, dimension = given["self"].float(), given["dim"][0]
        result = finish(_in_two(wide**2 if square else wide, dimension), wide.shape[dimension])
        result = result.to(given.get("dtype") or given["self"].dtype)
        return result if given.get("keepdim") else result.squeeze(dimension)

    return split


def _softmax(function: Any, given: dict[str, Any]) -> torch.Tensor:
    wide = given["self"].float()
    weights = torch.exp(wide - wide.amax(given["dim"], keepdim=True))
    return (weights / _in_two(weights, given["dim"])).to(given["self"].dtype)


SPLITS: dict[str, Callable[..., Any]] = {
    "mm": _product("self", "mat2"),
    "bmm": _product("self", "mat2"),
    "addmm": _product("mat1", "mat2"),
    "convolution": _convolution,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "native_layer_norm": _layer_norm,
    "mean": _over_dimension(lambda total, count: total / count),
    "sum": _over_dimension(lambda total, _: total),
    "linalg_vector_norm": _over_dimension(lambda total, _: total.sqrt(), square=True),
    "_softmax": _softmax,
}
"""Operations by their names in PyTorch's schema, with their sums split in two, each part summed in float32."""
