"""Records what a stage of a model calls: its operations, without their values, and its compiled regions."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_unflatten

_ALIGNMENT = 64
"""The alignment in bytes. The choice of a kernel depends on the alignment of its inputs, too."""

_MOVES = frozenset(
    """
    _local_scalar_dense _pin_memory _to_copy _unsafe_view _upsample_nearest_exact2d _upsample_nearest_exact3d amax amin
    argmax argmin cat clone constant_pad_nd copy copy_ embedding empty_like fill fill_ flip full_like gather index
    index_put_ index_select masked_fill masked_fill_ new_empty new_full new_ones new_zeros nonzero ones_like
    pixel_shuffle pixel_unshuffle repeat roll scatter sort stack topk upsample_nearest2d upsample_nearest3d where zero_
    zeros_like
    """.split()  # noqa: SIM905
)
"""Operations that only move, select, fill or convert single values, so that they need no trial."""

_ARITHMETIC = frozenset(
    """
    abs add ceil clamp clamp_max clamp_min div eq floor ge gt isfinite isnan le lt maximum minimum mul ne neg
    reciprocal relu round rsqrt rsub sign sqrt square sub
    """.split()  # noqa: SIM905
)
"""Operations on single values whose results IEEE 754 defines, and combinations of these."""


@dataclass(frozen=True)
class Layout:
    """The layout of a tensor in memory, without its values.

    Attributes:
        offset: the number of elements between the last aligned address and the first element.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    offset: int

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "Layout":
        """Return the layout of a tensor."""
        offset = tensor.data_ptr() % _ALIGNMENT // tensor.element_size()
        return cls(tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device, offset)

    def hold(self, values: torch.Tensor) -> torch.Tensor:
        """Return a new tensor of this layout with the given values; an expanded dimension takes its first value."""
        num_elements = self.offset + 1 + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True) if n)
        memory = torch.zeros(num_elements, dtype=self.dtype, device=self.device)
        tensor = memory.as_strided(self.shape, self.stride, self.offset)
        own = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in self.stride)
        tensor[own] = values[own].to(self.dtype)
        return tensor


def layouts_in(argument: Any) -> list[Layout]:
    """Return the layouts in an argument, which may be nested, in order."""
    return [leaf for leaf in tree_leaves(argument) if isinstance(leaf, Layout)]


@dataclass(frozen=True)
class Operation:
    """One call of an operation.

    Attributes:
        function: PyTorch's overload, such as `torch.ops.aten.addmm.default`.
        arguments: by their names in its schema, with a `Layout` in place of each tensor.
    """

    function: Any
    arguments: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The operation's name in PyTorch's schema, such as `addmm`."""
        return str(self.function.overloadpacket.__name__)

    @property
    def layouts(self) -> list[Layout]:
        """The layouts of all tensors among the arguments, in order."""
        return layouts_in(dict(self.arguments))

    @property
    def may_round(self) -> bool:
        """Whether the result may depend on the order or the instructions in which a kernel computes it."""
        if not any(layout.dtype.is_floating_point for layout in self.layouts):
            return False
        if self.arguments.get("accumulate") or self.arguments.get("alpha", 1) != 1:
            return True
        return not self.function.is_view and self.name not in _MOVES and self.name.rstrip("_") not in _ARITHMETIC

    def run(self, values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Run the operation on other values.

        Args:
            values: one tensor for each of `layouts`.

        Returns:
            The floating-point tensors of its result.
        """
        tensors = iter([layout.hold(tensor) for layout, tensor in zip(self.layouts, values, strict=True)])
        result = self.function(**tree_map_only(Layout, lambda _: next(tensors), dict(self.arguments)))
        return [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]


def grown_dimension(smaller: Sequence[int], larger: Sequence[int]) -> int | None:
    """Return the dimension of a shape that is longer in a larger batch; None if no dimension is.

    Raises:
        ValueError: the shapes differ in another way.
    """
    if len(smaller) == len(larger):
        grown = [i for i, pair in enumerate(zip(smaller, larger, strict=True)) if pair[0] != pair[1]]
        if not grown:
            return None
        if len(grown) == 1 and smaller[grown[0]] and larger[grown[0]] % smaller[grown[0]] == 0:
            return grown[0]
    raise ValueError(f"{tuple(larger)} where a smaller batch has {tuple(smaller)}")


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """Return the values as integers, which are equal exactly if the bits are, even those of NaN."""
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(whole[tensor.element_size()])


class Region:
    """The compiled forward function of a module, whose operations a recording cannot see.

    Args:
        forward: the compiled function.
    """

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, through the recording if one is active."""
        recording = _recording.get()
        return self._forward(*args, **kwargs) if recording is None else recording.call(self._forward, args, kwargs)


class Recording:
    """Records what a stage calls: its operations that may round, and its compiled regions.

    Args:
        smaller: a recording of the same stage with fewer items. If given, each compiled region is also called with that
            number of items, and the results are compared.

    Attributes:
        operations: in the order of their calls.
        regions: for each call of a compiled region, the shapes of its tensors.
        num_compared: for each call of a compiled region, the number of values that were compared.
        num_different: the number of these values that have other bits.
    """

    def __init__(self, smaller: "Recording | None" = None) -> None:
        self._smaller = smaller
        self._mode = _Mode(self)
        self.operations: list[Operation] = []
        self.regions: list[list[torch.Size]] = []
        self.num_compared: list[int] = []
        self.num_different = 0

    def __enter__(self) -> "Recording":
        _recording.set(self)
        self._mode.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._mode.__exit__(None, None, None)
        _recording.set(None)

    def call(self, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call a compiled region without recording its operations, because then it would not run as compiled code."""
        self.__exit__()
        try:
            result = forward(*args, **kwargs)
            leaves, structure = tree_flatten((args, kwargs))
            self.regions.append([leaf.shape for leaf in leaves if isinstance(leaf, torch.Tensor)])
            if self._smaller is not None and len(self.regions) <= len(self._smaller.regions):
                shapes = self._smaller.regions[len(self.regions) - 1]
                parts = (forward(*some, **named) for some, named in _parts(leaves, structure, iter(shapes)))
                self._compare(result, parts)
        finally:
            self.__enter__()
        return result

    def _compare(self, result: Any, parts: Iterator[Any]) -> None:
        num_compared = 0
        try:
            for whole, *pieces in zip(tree_leaves(result), *map(tree_leaves, parts), strict=True):
                joined = torch.cat(pieces, grown_dimension(pieces[0].shape, whole.shape) or 0)
                self.num_different += int((bits(joined) != bits(whole)).sum())
                num_compared += whole.numel()
        except ValueError:  # the items are not stacked along one dimension
            self.num_different += 1
        self.num_compared.append(num_compared)


_recording: ContextVar[Recording | None] = ContextVar("recording", default=None)


def is_recording() -> bool:
    """Return whether the operations of this thread are being recorded."""
    return _recording.get() is not None


def _parts(leaves: Sequence[Any], structure: Any, shapes: Iterator[torch.Size]) -> Iterator[Any]:
    """Yield the arguments of a call, split along the dimension of its items into pieces of the given shapes."""
    pieces = [_pieces(leaf, next(shapes)) if isinstance(leaf, torch.Tensor) else repeat(leaf) for leaf in leaves]
    is_endless = all(isinstance(some, repeat) for some in pieces)  # nothing of the call belongs to an item
    for part in islice(zip(*pieces, strict=False), 1 if is_endless else None):
        yield tree_unflatten(list(part), structure)


def _pieces(tensor: torch.Tensor, shape: torch.Size) -> Iterable[torch.Tensor]:
    dimension = grown_dimension(shape, tensor.shape)
    return repeat(tensor) if dimension is None else tensor.split(shape[dimension], dimension)


class _Mode(TorchDispatchMode):
    """Passes every operation to a recording."""

    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self._recording = recording

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not all(kind in (torch.Tensor, torch.nn.Parameter) for kind in types):
            return NotImplemented  # a quantized tensor, which calls operations of plain ones
        names = [argument.name for argument in function._schema.arguments]
        given = dict(zip(names, args, strict=False)) | (kwargs or {})
        operation = Operation(function, tree_map_only(torch.Tensor, Layout.of, given))
        if operation.may_round:
            self._recording.operations.append(operation)
        return function(*args, **(kwargs or {}))
