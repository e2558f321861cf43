"""Strict mode's forward passes: at the reference size, or at larger ones that have proven to give the same bits.

A kernel may sum in another order for another number of items, so that an item's last bits depend on its batch. Whether
it does on this device cannot be known, only tried: the first calls at a larger size run at both, and count as proof if
they agree in every bit. The items get the reference's result either way.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

_Stage = Callable[..., tuple[torch.Tensor, ...]]

_NUM_TRIALS = 3
"""Calls that must agree before a size is trusted; fewer where a batch makes fewer calls."""


class ProvenBatches:
    """Calls one stage of a model (text encoder, denoiser, VAE decoder) at sizes that give the reference's bits.

    Args:
        reference_batch: items in every call; None (`fast`): as many as come.
        largest: never call with more items at once; None: whatever comes.
        num_trials: calls that must agree before a larger size is trusted.

    Attributes:
        sizes: by shape of an item's inputs, the sizes that give the reference's bits, ascending.
        refuted: by shape of an item's inputs, the size that does not.
        refuted_at: the size that does not for the inputs of the last call; None: none is known.
        num_slots: items that calls had room for, so far.
        num_padding: of these, those that were filled with copies.
        num_trials_run: calls that were made twice, so far.
    """

    def __init__(self, reference_batch: int | None, largest: int | None = None, num_trials: int = _NUM_TRIALS) -> None:
        self._reference_batch = reference_batch
        self._largest = largest or sys.maxsize
        self._num_trials = num_trials
        self._num_agreed: dict[tuple[str, int], int] = {}
        self.sizes: dict[str, list[int]] = {}
        self.refuted: dict[str, int] = {}
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
        if self._reference_batch is None:
            parts = zip(*(tensor.split(self._largest) for tensor in inputs), strict=True)
            return _joined([self._call(function, part, len(part[0])) for part in parts])
        shape = " ".join("x".join(map(str, tensor.shape[1:])) for tensor in inputs)
        sizes = self.sizes.setdefault(shape, [self._reference_batch])
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
        reference_batch, self._reference_batch = self._reference_batch, None
        try:
            yield
        finally:
            self._reference_batch = reference_batch

    def _try(self, function: _Stage, inputs: Sequence[torch.Tensor], shape: str, size: int) -> tuple[torch.Tensor, ...]:
        """The reference's result of `size` items, compared with that of one call."""
        known = self.sizes[shape][-1]
        expected = _joined(
            [
                self._call(function, [tensor[start : start + known] for tensor in inputs], known)
                for start in range(0, size, known)
            ]
        )
        self.num_trials_run += 1
        if all(map(_same_bits, function(*inputs), expected)):
            self._num_agreed[shape, size] = self._num_agreed.get((shape, size), 0) + 1
            if self._num_agreed[shape, size] >= self._num_trials:
                self.sizes[shape].append(size)
        else:
            self.refuted[shape] = size
        return expected

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
    return torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))
