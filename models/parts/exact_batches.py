"""Strict mode's forward passes: at the reference size, or at larger ones that have proven to give the same bits.

A kernel may sum in another order for another number of items, so that an item's last bits depend on its batch. Whether
it does on this device cannot be known, only tried: the first call at a larger size is a trial (`models.parts.trials`).
The items of a trial get the reference's result either way.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from rendermill.models.parts.operations import Recording, bits
from rendermill.models.parts.trials import difference, is_enough

_Stage = Callable[..., tuple[torch.Tensor, ...]]


def shape_of(inputs: Sequence[torch.Tensor]) -> str:
    """The shape of an item's inputs, in words.

    Args:
        inputs: tensors (items, …).
    """
    return " ".join("x".join(map(str, tensor.shape[1:])) for tensor in inputs)


class ProvenBatches:
    """Calls one stage of a model (text encoder, denoiser, VAE decoder) at sizes that give the reference's bits.

    Args:
        reference_batch: items in every call; None (`fast`): as many as come.
        largest: never call with more items at once; None: whatever comes.

    Attributes:
        reference_batch: as given.
        sizes: by shape of an item's inputs, the sizes that give the reference's bits, ascending.
        refuted: by shape of an item's inputs, the smallest size that may give other bits.
        reasons: by shape of an item's inputs, why that size may, in words; of trials in this process.
        refuted_at: the refuted size for the inputs of the last call; None: none is known.
        num_slots: items that calls had room for, so far.
        num_padding: of these, those that were filled with copies.
        num_trials_run: trials so far.
    """

    def __init__(self, reference_batch: int | None, largest: int | None = None) -> None:
        self.reference_batch = reference_batch
        self._largest = largest or sys.maxsize
        self._num_compared: dict[tuple[str, int], list[int]] = {}
        self.sizes: dict[str, list[int]] = {}
        self.refuted: dict[str, int] = {}
        self.reasons: dict[str, str] = {}
        self.refuted_at: int | None = None
        self.num_slots = self.num_padding = self.num_trials_run = 0

    def __call__(self, function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
        """Call a function on as many items at once as gives every item the reference's bits.

        Args:
            function: takes tensors (items, …) and returns one.
            inputs: tensors with the same number of items; what is short is padded by repeating the last item.
        """
        return self.with_tuples(lambda *parts: (function(*parts),), *inputs)[0]

    def with_tuples(self, function: _Stage, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The same for a function that returns several tensors."""
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
        self.refuted_at = self.refuted.get(shape)
        return _joined(outputs)

    @contextmanager
    def unpadded(self) -> Iterator[None]:
        """Within, call with what comes, whatever the bits."""
        reference_batch, self.reference_batch = self.reference_batch, None
        try:
            yield
        finally:
            self.reference_batch = reference_batch

    def _try(self, function: _Stage, inputs: Sequence[torch.Tensor], shape: str, size: int) -> tuple[torch.Tensor, ...]:
        """The reference's result of `size` items, and the trial of a call with all of them."""
        known = self.sizes[shape][-1]
        first, *others = [[tensor[start : start + known] for tensor in inputs] for start in range(0, size, known)]
        with Recording() as smaller:
            results = [self._call(function, first, known)]
        expected = _joined(results + [self._call(function, part, known) for part in others])
        self.num_trials_run += 1
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
        """Count the values of compiled regions that were compared in all trials of a size; whether they are enough."""
        before = self._num_compared.setdefault((shape, size), [0] * len(num_compared))
        before[:] = [sum(pair) for pair in zip(before, num_compared, strict=True)]
        return is_enough(before)

    def _call(self, function: _Stage, inputs: Sequence[torch.Tensor], size: int) -> tuple[torch.Tensor, ...]:
        num_items = inputs[0].shape[0]
        self.num_slots += size
        self.num_padding += size - num_items
        if num_items < size:
            inputs = [torch.cat([part, part[-1:].expand(size - num_items, *part.shape[1:])]) for part in inputs]
        return tuple(output[:num_items] for output in function(*inputs))


def _joined(outputs: list[tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
    return outputs[0] if len(outputs) == 1 else tuple(map(torch.cat, zip(*outputs, strict=True)))


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are equal, also where they hold NaN."""
    return torch.equal(bits(one), bits(other))
