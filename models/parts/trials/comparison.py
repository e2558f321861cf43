"""Trials of a batch size: test whether all operations of a stage give an item the same bits in a larger batch.

A trial runs every operation of the stage again, at both sizes, on the inputs of `inputs.py`, and compares the results.
"""

from collections.abc import Sequence

import torch

from rendermill.models.parts.operations import Operation, Recording, bits, grown_dimension
from rendermill.models.parts.trials.inputs import Source, inputs_for

_NUM_OF_REGIONS = 2**23
"""The number of results of a compiled region to compare, of any size: it may contain fewer sums, which are rounded."""
_MAX_NUM_RUNS = 2**14


def is_enough(num_compared: Sequence[int]) -> bool:
    """Return whether enough values of each compiled region were compared to show a changed order.

    Args:
        num_compared: The number of values for each call of a region.
    """
    return min(num_compared, default=_NUM_OF_REGIONS) >= _NUM_OF_REGIONS


def difference(smaller: Recording, larger: Recording) -> str | None:
    """Return why items may get other bits in the larger of two batches; None if they get the same bits.

    Args:
        smaller: A recording of a stage, called with a number of items that is known to give the right bits.
        larger: A recording of the same stage with more items, compared with the smaller one.
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
            except Exception as error:  # an operation may reject these inputs, which must not fail an item
                problem = f"cannot be tried ({type(error).__name__})"
            if problem:
                return f"{other.name} {problem}"
    return None


def _difference_of(smaller: Operation, larger: Operation) -> str | None:
    """Run an operation at both sizes on the same items until enough results have been compared; return what differs."""
    pairs = zip(smaller.layouts, larger.layouts, strict=True)
    grown = [grown_dimension(one.shape, other.shape) for one, other in pairs]
    if all(dimension is None for dimension in grown):
        return None
    source = Source(smaller.layouts[0].device)
    for fill, num_needed in inputs_for(smaller):
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
    """Return the items repeated along a dimension up to the length of a shape."""
    if dimension is None:
        return tensor
    num_repeats = [1] * tensor.dim()
    num_repeats[dimension] = shape[dimension] // tensor.shape[dimension]
    return tensor.repeat(num_repeats)
