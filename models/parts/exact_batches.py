"""Strict mode's forward passes: at the reference size, or at larger sizes that were proven to give the same bits.

A kernel may add numbers in another order if the batch is larger, so that an item's last bits depend on its batch.
Whether it does so on a given device is not documented anywhere and has to be tested: the first call at a larger size is
a trial (see `models.parts.trials`). The items of a trial get the result of the reference size in any case.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from rendermill.models.parts.operations import Recording, bits
from rendermill.models.parts.trials.comparison import difference, is_enough

_Stage = Callable[..., tuple[torch.Tensor, ...]]


def shape_of(inputs: Sequence[torch.Tensor]) -> str:
    """Return the shape of one item's inputs as text, such as "32x32x32 300x2304".

    Args:
        inputs: tensors of shape (items, …).
    """
    return " ".join("x".join(map(str, tensor.shape[1:])) for tensor in inputs)


@dataclass
class Work:
    """The counts of a stage's calls.

    Attributes:
        num_slots: the number of items that the calls had room for.
        num_padding: the number of these slots that were filled with copies of another item.
        num_trials: the number of trials of a larger size.
        refuted_size: the smallest size that may change the bits of inputs like those of the last call; None if no such
            size is known.
    """

    num_slots: int = 0
    num_padding: int = 0
    num_trials: int = 0
    refuted_size: int | None = None


class ExactBatches:
    """Calls one stage of a model (text encoder, denoiser, VAE decoder) at sizes that give the reference's bits.

    Args:
        reference_batch: the number of items in every call; None (`fast`): any number.
        largest: the largest number of items in a call; None: no limit.

    Attributes:
        reference_batch: as given.
        sizes: by the shape of an item's inputs, the sizes that give the reference's bits, ascending.
        refuted: by the shape of an item's inputs, the smallest size that may give other bits.
        reasons: by the shape of an item's inputs, why that size may, as text; only of trials in this process.
        work: what was done since `begin_work`.
    """

    def __init__(self, reference_batch: int | None, largest: int | None = None) -> None:
        self.reference_batch = reference_batch
        self._largest = largest or sys.maxsize
        self._num_compared: dict[tuple[str, int], list[int]] = {}
        self.sizes: dict[str, list[int]] = {}
        self.refuted: dict[str, int] = {}
        self.reasons: dict[str, str] = {}
        self.work = Work()

    def begin_work(self) -> None:
        """Start a new account of the work, as before each batch."""
        self.work = Work()

    def __call__(self, function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
        """Call a function with as many items at a time as keep the reference's bits for every item.

        Args:
            function: takes tensors of shape (items, …) and returns one such tensor.
            inputs: tensors with the same number of items. A call that lacks items repeats the last one.

        Returns:
            The results of all items, in order.
        """
        return self.with_tuples(lambda *parts: (function(*parts),), *inputs)[0]

    def with_tuples(self, function: _Stage, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Do the same with a function that returns several tensors."""
        num_items = inputs[0].shape[0]
        if self.reference_batch is None:
            parts = zip(*(tensor.split(self._largest) for tensor in inputs), strict=True)
            return _joined([self._call(function, part, len(part[0])) for part in parts])
        shape = shape_of(inputs)
        sizes = self.sizes.setdefault(shape, [self.reference_batch])
        outputs: list[tuple[torch.Tensor, ...]] = []
        start = 0
        larger = sizes[-1] * 2
        if shape not in self.refuted and larger <= min(num_items, self._largest):
            outputs.append(self._try(function, [tensor[:larger] for tensor in inputs], shape, larger))
            start = larger
        while start < num_items:
            size = max((size for size in sizes if size <= num_items - start), default=sizes[0])
            outputs.append(self._call(function, [tensor[start : start + size] for tensor in inputs], size))
            start += size
        self.work.refuted_size = self.refuted.get(shape)
        return _joined(outputs)

    @contextmanager
    def unpadded(self) -> Iterator[None]:
        """Within this context, call functions with any number of items, without padding and without equal bits."""
        reference_batch, self.reference_batch = self.reference_batch, None
        try:
            yield
        finally:
            self.reference_batch = reference_batch

    def _try(self, function: _Stage, inputs: Sequence[torch.Tensor], shape: str, size: int) -> tuple[torch.Tensor, ...]:
        """Return the reference's result of `size` items, and test whether one call with all of them gives the same."""
        known = self.sizes[shape][-1]
        first, *others = [[tensor[start : start + known] for tensor in inputs] for start in range(0, size, known)]
        with Recording() as smaller:
            results = [self._call(function, first, known)]
        expected = _joined(results + [self._call(function, part, known) for part in others])
        self.work.num_trials += 1
        with Recording(smaller) as larger:
            found = function(*inputs)
        problem = difference(smaller, larger)
        if problem is None and not all(map(_same_bits, found, expected)):
            problem = "gives other bits"
        if problem is not None:
            self.refuted[shape], self.reasons[shape] = size, problem
        elif self._add_compared(shape, size, larger.num_compared):
            self.sizes[shape].append(size)
        return expected

    def _add_compared(self, shape: str, size: int, num_compared: Sequence[int]) -> bool:
        """Add to the number of values of compiled regions compared in all trials of a size; return if it suffices."""
        before = self._num_compared.setdefault((shape, size), [0] * len(num_compared))
        before[:] = [sum(pair) for pair in zip(before, num_compared, strict=True)]
        return is_enough(before)

    def _call(self, function: _Stage, inputs: Sequence[torch.Tensor], size: int) -> tuple[torch.Tensor, ...]:
        num_items = inputs[0].shape[0]
        self.work.num_slots += size
        self.work.num_padding += size - num_items
        if num_items < size:
            inputs = [torch.cat([part, part[-1:].expand(size - num_items, *part.shape[1:])]) for part in inputs]
        return tuple(output[:num_items] for output in function(*inputs))


def _joined(outputs: list[tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
    return outputs[0] if len(outputs) == 1 else tuple(map(torch.cat, zip(*outputs, strict=True)))


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two tensors are equal in every bit, also where they hold NaN."""
    return torch.equal(bits(one), bits(other))
