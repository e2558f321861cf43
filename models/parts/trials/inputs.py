"""Inputs on which an operation shows whether it sums in another order in a larger batch.

That two results of a stage agree proves little. Rounding hides a changed order of summation: in bfloat16 only about one
result in 65,000 shows it. So most inputs here have sums that cancel. What is left of such a sum is the rounding of its
partial sums, which another order changes in most results. Operations without such inputs run on ordinary ones until
enough results have been compared to show a changed order.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from rendermill.models.parts.operations import Layout, Operation, layouts_in

_LARGE_SCORE = 2.0**11
"""Queries and keys of this size turn the rounding of a float32 sum into attention scores around 1."""

_NUM_CANCELLING = 2**12
"""The number of results to compare if sums cancel: at least one in ten shows a changed order."""
_NUM_POINTWISE = 2**14
"""The number of results to compare if nothing is summed, so that only other instructions may change results."""
_NUM_BY_SIZE = {2: 2**21, 4: 2**11, 8: 2**11}
"""The number of results to compare otherwise, by their size in bytes. With two bytes one in 2^16 shows a changed order,
so that 2^21 miss it with a probability below e^-20; with four bytes at least one in ten shows it."""


class Source:
    """A source of random values on a device."""

    def __init__(self, device: torch.device) -> None:
        self._generator = torch.Generator(device).manual_seed(0)
        self._device = device

    def normal(self, shape: Sequence[int]) -> torch.Tensor:
        """Return float32 numbers of the standard normal distribution."""
        return torch.randn(tuple(shape), generator=self._generator, device=self._device)

    def spread(self, shape: Sequence[int], dtype: torch.dtype, is_product: bool = True) -> torch.Tensor:
        """Return random numbers of both signs over many powers of two: almost every addition of them is rounded.

        Args:
            is_product: Whether products of them are added, which have twice as many digits.
        """
        most = (6.0 if is_product else 16.0) if dtype in (torch.bfloat16, torch.float32) else 3.0
        exponents = torch.empty(tuple(shape), device=self._device).uniform_(-most, most, generator=self._generator)
        values = exponents.floor_().exp2_().mul_(self.normal(shape).clamp_(-1.75, 1.75))
        return values.to(dtype).to(torch.float16 if dtype.itemsize == 1 else dtype)

    def whole_numbers(self, num_numbers: int, end: int) -> torch.Tensor:
        """Return random integers from 0 to END - 1."""
        return torch.randint(end, (num_numbers,), generator=self._generator, device=self._device)

    def order(self, num_elements: int) -> torch.Tensor:
        """Return the integers from 0 to N - 1 in a random order."""
        return torch.randperm(num_elements, generator=self._generator, device=self._device)


Values = list[torch.Tensor]
"""One tensor for each layout of an operation."""
Fill = Callable[[Source, Operation], Values]


def inputs_for(operation: Operation) -> Iterator[tuple[Fill, int]]:
    """Yield functions that make inputs for an operation, each with the number of results to compare."""
    arguments = operation.arguments
    if operation.name in _MATRICES:
        yield _product, _NUM_CANCELLING
    elif operation.name == "convolution":
        if arguments["input"].shape[1] > arguments["groups"]:
            yield _convolution_channels, _NUM_CANCELLING
        else:
            yield _convolution_taps, _NUM_CANCELLING
            yield _ordinary, _NUM_BY_SIZE[2]
    elif {"query", "key", "value"} <= arguments.keys():
        yield _attention_values, _NUM_CANCELLING
        yield _attention_scores, _NUM_CANCELLING
    elif operation.name in ("mean", "sum"):
        yield _sums, _NUM_CANCELLING
    elif torch.Tag.pointwise in operation.function.tags:
        yield _ordinary, _NUM_POINTWISE
    else:
        size = min(layout.dtype.itemsize for layout in operation.layouts if layout.dtype.is_floating_point)
        yield _ordinary, _NUM_BY_SIZE.get(size, _NUM_BY_SIZE[2])


_MATRICES = {
    "mm": ("self", "mat2"),
    "bmm": ("self", "mat2"),
    "addmm": ("mat1", "mat2"),
    "_addmm_activation": ("mat1", "mat2"),
    "baddbmm": ("batch1", "batch2"),
    "_scaled_mm": ("self", "mat2"),
}
"""By name of an operation, the names of the two matrices among its arguments."""


def _named(operation: Operation, values: Mapping[str, torch.Tensor]) -> Values:
    """Return the given values in the order of layouts; arguments without a value get zeros, and scales ones."""
    return [
        values.get(name, torch.full(layout.shape, float(name.startswith("scale")), device=layout.device))
        for name, argument in operation.arguments.items()
        for layout in layouts_in(argument)
    ]


def _ordinary(source: Source, operation: Operation) -> Values:
    """Return normally distributed numbers; zeros for integers, which may be indices, and true for booleans."""
    return [
        source.normal(layout.shape)
        if layout.dtype.is_floating_point
        else torch.full(layout.shape, layout.dtype == torch.bool, device=layout.device)
        for layout in operation.layouts
    ]


def _twice(
    source: Source, layout: Layout, dimension: int, order: torch.Tensor, sign: int, is_product: bool = True
) -> torch.Tensor:
    """Return random slices along a dimension, each one twice, the second time times `sign`, in the given order."""
    half, rest = list(layout.shape), list(layout.shape)
    half[dimension], rest[dimension] = len(order) // 2, len(order) % 2
    values = source.spread(half, layout.dtype, is_product)
    slices = [values, sign * values, torch.zeros(rest, dtype=values.dtype, device=layout.device)]
    return torch.cat(slices, dimension).index_select(dimension, order)


def _sums(source: Source, operation: Operation) -> Values:
    """Return numbers that cancel in pairs along the longest dimension that is summed."""
    tensor: Layout = operation.arguments["self"]
    dimensions = operation.arguments.get("dim") or range(len(tensor.shape))
    longest = max(dimensions, key=lambda dimension: tensor.shape[dimension])
    order = source.order(tensor.shape[longest])
    return _named(operation, {"self": _twice(source, tensor, longest, order, -1, is_product=False)})


def _product(source: Source, operation: Operation) -> Values:
    """Return matrices whose product is zero except for rounding."""
    left, right = _MATRICES[operation.name]
    one, other = operation.arguments[left], operation.arguments[right]
    order = source.order(one.shape[-1])
    return _named(operation, {left: _twice(source, one, -1, order, -1), right: _twice(source, other, -2, order, 1)})


def _convolution_channels(source: Source, operation: Operation) -> Values:
    """Return channels that cancel in pairs within each group."""
    image, weight, num_groups = (operation.arguments[name] for name in ("input", "weight", "groups"))
    order = source.order(image.shape[1] // num_groups)
    channels = _twice(source, image, 1, order, -1).repeat(1, num_groups, *[1] * (len(image.shape) - 2))
    if operation.arguments["transposed"]:
        kernels = _twice(source, weight, 0, order, 1).repeat(num_groups, *[1] * (len(weight.shape) - 1))
    else:
        kernels = _twice(source, weight, 1, order, 1)
    return _named(operation, {"input": channels, "weight": kernels})


def _convolution_taps(source: Source, operation: Operation) -> Values:
    """Return kernels whose taps cancel in pairs at one place of the image, and channels with a single value each."""
    image, weight = operation.arguments["input"], operation.arguments["weight"]
    num_channels = torch.Size(weight.shape[:2]).numel()
    is_met = _taps_met(source, operation, num_channels)
    num_taps = is_met.shape[1]
    # put the taps that meet the image first, in a random order; the second half of these repeats the first half
    order = source.normal((num_channels, num_taps)).masked_fill(~is_met, torch.inf).argsort(1)
    half, place = is_met.sum(1, keepdim=True) // 2, torch.arange(num_taps, device=weight.device)
    is_second, is_left = (place >= half) & (place < 2 * half), place == 2 * half
    taps = source.spread((num_channels, num_taps), weight.dtype, is_product=False)
    taps = taps.gather(1, torch.where(is_second, place - half, place))
    taps = torch.where(is_second, -taps, taps).masked_fill(is_left, 0)
    taps = torch.empty_like(taps).scatter(1, order, taps).reshape(weight.shape)
    channels = source.spread((*image.shape[:2], *[1] * (len(image.shape) - 2)), image.dtype).expand(image.shape)
    return _named(operation, {"input": channels, "weight": taps})


def _taps_met(source: Source, operation: Operation, num_channels: int) -> torch.Tensor:
    """Return whether taps meet the image, not the padding around it, at a random place; bool, (channels, taps)."""
    image, weight = operation.arguments["input"].shape[2:], operation.arguments["weight"].shape[2:]
    device = operation.arguments["weight"].device
    if operation.arguments["transposed"]:
        return torch.ones(num_channels, torch.Size(weight).numel(), dtype=torch.bool, device=device)
    met = torch.ones(num_channels, 1, dtype=torch.bool, device=device)
    settings = (operation.arguments[name] for name in ("stride", "padding", "dilation"))
    for length, num_taps, stride, padding, dilation in zip(image, weight, *settings, strict=True):
        num_places = (length + 2 * padding - dilation * (num_taps - 1) - 1) // stride + 1
        first = stride * source.whole_numbers(num_channels, num_places) - padding
        index = first[:, None] + dilation * torch.arange(num_taps, device=device)
        is_own = (index >= 0) & (index < length)
        met = (met[:, :, None] & is_own[:, None, :]).flatten(1)
    return met


def _attention_values(source: Source, operation: Operation) -> Values:
    """Return inputs that attend equally to all tokens, whose values cancel in pairs."""
    value = operation.arguments["value"]
    tokens = source.order(value.shape[-2])
    return _named(operation, {"value": _twice(source, value, -2, tokens, -1)})


def _attention_scores(source: Source, operation: Operation) -> Values:
    """Return queries and keys whose scores consist of rounding only, and ordinary values."""
    query, key, value = (operation.arguments[name] for name in ("query", "key", "value"))
    order = source.order(query.shape[-1])
    values = {
        "query": _LARGE_SCORE * _twice(source, query, -1, order, -1),
        "key": _LARGE_SCORE * _twice(source, key, -1, order, 1),
        "value": source.normal(value.shape),
    }
    return _named(operation, values)
