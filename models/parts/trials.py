"""Trials of a batch size: whether everything that a stage calls gives an item the same bits in a larger batch.

That two results of a stage agree proves little. Rounding hides a changed order of summation: in bfloat16, one result in
some 65,000 shows it. So a trial runs every operation that the stage calls again, at both sizes, on inputs whose sums
cancel. What is left of such a sum is the rounding of its partial sums, which another order changes in most results.
Operations without such inputs run on ordinary ones until enough results were compared for a changed order to show.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from rendermill.models.parts.operations import Layout, Operation, Recording, bits, grown_dimension, layouts_in

_LARGE_SCORE = 2.0**11
"""Queries and keys of this size turn the rounding of a float32 sum into attention scores around 1."""

_NUM_CANCELLING = 2**12
"""Results to compare where sums cancel: at least one in ten shows a changed order."""
_NUM_POINTWISE = 2**14
"""Results to compare where nothing is summed, and only other instructions might give other results."""
_NUM_BY_SIZE = {2: 2**21, 4: 2**11, 8: 2**11}
"""Results to compare otherwise, by their size in bytes: of two bytes, one in 2^16 shows a changed order, so that 2^21
miss it with a probability of about e^-20; of four bytes, at least one in ten shows it."""
_NUM_OF_REGIONS = 2**23
"""Results of a compiled region to compare, of whatever size, as its inner sums are rounded and may be fewer."""
_MAX_NUM_RUNS = 2**14


def is_enough(num_compared: Sequence[int]) -> bool:
    """Whether enough values of each compiled region were compared for a changed order to show.

    Args:
        num_compared: number of values by call of a region.
    """
    return min(num_compared, default=_NUM_OF_REGIONS) >= _NUM_OF_REGIONS


def difference(smaller: Recording, larger: Recording) -> str | None:
    """Why items may get other bits in the larger of two batches, in words; None if they get the same.

    Args:
        smaller: a stage, called with as many items as are known to give the right bits.
        larger: the same stage with more items, compared with the smaller one.
    """
    names, others = [[operation.name for operation in some.operations] for some in (smaller, larger)]
    if names != others:
        pairs = zip((*names, "nothing"), (*others, "nothing"), strict=False)
        expected, found = next(pair for pair in pairs if pair[0] != pair[1])
        return f"calls {found} where a smaller batch calls {expected}"
    if larger.num_different or len(smaller.regions) != len(larger.regions):
        return "compiled code gives other bits"
    tried: set[str] = set()
    for one, other in zip(smaller.operations, larger.operations, strict=True):
        if (key := f"{one} {other}") not in tried:
            tried.add(key)
            try:
                problem = _difference_of(one, other)
            except ValueError as error:
                problem = f"takes {error}"
            except torch.OutOfMemoryError:
                problem = "leaves no memory to try it"
            except Exception as error:  # an operation may not take such inputs; no item should fail for that
                problem = f"cannot be tried ({type(error).__name__})"
            if problem:
                return f"{other.name} {problem}"
    return None


def _difference_of(smaller: Operation, larger: Operation) -> str | None:
    """Run an operation at both sizes, on the same items, until enough results were compared."""
    pairs = zip(smaller.layouts, larger.layouts, strict=True)
    grown = [grown_dimension(one.shape, other.shape) for one, other in pairs]
    if all(dimension is None for dimension in grown):
        return None
    source = Source(smaller.layouts[0].device)
    for fill, num_needed in _fills(smaller):
        num_compared = num_runs = 0
        num_different = torch.zeros((), dtype=torch.int64, device=smaller.layouts[0].device)
        while num_compared < num_needed and num_runs < _MAX_NUM_RUNS:
            values = fill(source, smaller)
            results = smaller.run(values)
            repeated = [
                _repeated(tensor, dimension, layout.shape)
                for tensor, dimension, layout in zip(values, grown, larger.layouts, strict=True)
            ]
            if not results:
                break
            for one, other in zip(results, larger.run(repeated), strict=True):
                expected = _repeated(one, grown_dimension(one.shape, other.shape), other.shape)
                num_different += (bits(expected) != bits(other)).sum()
                num_compared += other.numel()
            num_runs += 1
        if num_different:
            return f"gives other bits (inputs: {fill.__name__.strip('_')})"
        if 0 < num_compared < num_needed:
            return "gives too few results to tell"
    return None


def _repeated(tensor: torch.Tensor, dimension: int | None, shape: Sequence[int]) -> torch.Tensor:
    """The same items again and again, up to the length of a shape."""
    if dimension is None:
        return tensor
    num_repeats = [1] * tensor.dim()
    num_repeats[dimension] = shape[dimension] // tensor.shape[dimension]
    return tensor.repeat(num_repeats)


class Source:
    """A source of random values on a device."""

    def __init__(self, device: torch.device) -> None:
        self._generator = torch.Generator(device).manual_seed(0)
        self._device = device

    def normal(self, shape: Sequence[int]) -> torch.Tensor:
        """Float32 numbers of the standard normal distribution."""
        return torch.randn(tuple(shape), generator=self._generator, device=self._device)

    def spread(self, shape: Sequence[int], dtype: torch.dtype, is_product: bool = True) -> torch.Tensor:
        """Random numbers of both signs over many powers of two: almost every addition of them is rounded to float32.

        Args:
            is_product: their products are added, which have twice as many digits.
        """
        most = (6.0 if is_product else 16.0) if dtype in (torch.bfloat16, torch.float32) else 3.0
        exponents = torch.empty(tuple(shape), device=self._device).uniform_(-most, most, generator=self._generator)
        values = exponents.floor_().exp2_().mul_(self.normal(shape).clamp_(-1.75, 1.75))
        return values.to(dtype).to(torch.float16 if dtype.itemsize == 1 else dtype)

    def whole_numbers(self, num_numbers: int, end: int) -> torch.Tensor:
        """Random numbers from 0 to END - 1."""
        return torch.randint(end, (num_numbers,), generator=self._generator, device=self._device)

    def order(self, num_elements: int) -> torch.Tensor:
        """The numbers from 0 to N - 1 in a random order."""
        return torch.randperm(num_elements, generator=self._generator, device=self._device)


Values = list[torch.Tensor]
"""A tensor for each layout of an operation."""
Fill = Callable[[Source, Operation], Values]


def _fills(operation: Operation) -> Iterator[tuple[Fill, int]]:
    """The inputs on which to run an operation, and how many results to compare of each."""
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
"""The names of the two matrices of an operation."""


def _named(operation: Operation, values: Mapping[str, torch.Tensor]) -> Values:
    """Values by the names of arguments, in the order of layouts: for others zeros, or ones for scales."""
    return [
        values.get(name, torch.full(layout.shape, float(name.startswith("scale")), device=layout.device))
        for name, argument in operation.arguments.items()
        for layout in layouts_in(argument)
    ]


def _ordinary(source: Source, operation: Operation) -> Values:
    """Normally distributed numbers; zeros for whole numbers, which may be indices, and true for booleans."""
    return [
        source.normal(layout.shape)
        if layout.dtype.is_floating_point
        else torch.full(layout.shape, layout.dtype == torch.bool, device=layout.device)
        for layout in operation.layouts
    ]


def _twice(
    source: Source, layout: Layout, dimension: int, order: torch.Tensor, sign: int, is_product: bool = True
) -> torch.Tensor:
    """Random slices along a dimension, each twice, the second time with a sign, in the given order."""
    half, rest = list(layout.shape), list(layout.shape)
    half[dimension], rest[dimension] = len(order) // 2, len(order) % 2
    values = source.spread(half, layout.dtype, is_product)
    slices = [values, sign * values, torch.zeros(rest, dtype=values.dtype, device=layout.device)]
    return torch.cat(slices, dimension).index_select(dimension, order)


def _sums(source: Source, operation: Operation) -> Values:
    """Numbers that cancel in pairs along the longest dimension that is summed."""
    tensor: Layout = operation.arguments["self"]
    dimensions = operation.arguments.get("dim") or range(len(tensor.shape))
    longest = max(dimensions, key=lambda dimension: tensor.shape[dimension])
    order = source.order(tensor.shape[longest])
    return _named(operation, {"self": _twice(source, tensor, longest, order, -1, is_product=False)})


def _product(source: Source, operation: Operation) -> Values:
    """Matrices whose product is zero but for rounding."""
    left, right = _MATRICES[operation.name]
    one, other = operation.arguments[left], operation.arguments[right]
    order = source.order(one.shape[-1])
    return _named(operation, {left: _twice(source, one, -1, order, -1), right: _twice(source, other, -2, order, 1)})


def _convolution_channels(source: Source, operation: Operation) -> Values:
    """Channels that cancel in pairs within each group."""
    image, weight, num_groups = (operation.arguments[name] for name in ("input", "weight", "groups"))
    order = source.order(image.shape[1] // num_groups)
    channels = _twice(source, image, 1, order, -1).repeat(1, num_groups, *[1] * (len(image.shape) - 2))
    if operation.arguments["transposed"]:
        kernels = _twice(source, weight, 0, order, 1).repeat(num_groups, *[1] * (len(weight.shape) - 1))
    else:
        kernels = _twice(source, weight, 1, order, 1)
    return _named(operation, {"input": channels, "weight": kernels})


def _convolution_taps(source: Source, operation: Operation) -> Values:
    """Kernels of which the taps that one place of the image meets cancel in pairs, on channels of one value each."""
    image, weight = operation.arguments["input"], operation.arguments["weight"]
    num_channels = torch.Size(weight.shape[:2]).numel()
    is_met = _taps_met(source, operation, num_channels)
    num_taps = is_met.shape[1]
    # taps that are met, in a random order, before the others; then each of their second half is one of the first
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
    """Whether taps meet the image, not the padding around it, at a random place; (channels, taps), bool."""
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
    """Attention to all tokens alike, whose values cancel in pairs."""
    value = operation.arguments["value"]
    tokens = source.order(value.shape[-2])
    return _named(operation, {"value": _twice(source, value, -2, tokens, -1)})


def _attention_scores(source: Source, operation: Operation) -> Values:
    """Scores that are nothing but rounding, on ordinary values."""
    query, key, value = (operation.arguments[name] for name in ("query", "key", "value"))
    order = source.order(query.shape[-1])
    values = {
        "query": _LARGE_SCORE * _twice(source, query, -1, order, -1),
        "key": _LARGE_SCORE * _twice(source, key, -1, order, 1),
        "value": source.normal(value.shape),
    }
    return _named(operation, values)
