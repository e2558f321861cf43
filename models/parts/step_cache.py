"""A cache of predictions: some steps are forecast from earlier ones instead of computed."""

from collections.abc import Callable

import torch

_NUM_FIRST_STEPS, _NUM_LAST_STEPS = 3, 2
"""The numbers of steps at both ends that are always computed: they decide on the composition and on the details."""


class Forecast:
    """Computes the prediction of every N-th step, and extends the line through the last two to the steps in between.

    This is TaylorSeer of first order on the denoiser's output (https://huggingface.co/papers/2503.06923; in diffusers,
    the lite mode of `TaylorSeerCacheConfig`). The step's number alone decides whether it is computed. A threshold on
    the predictions, as other caches have it, would make an item depend on its batch.

    Args:
        interval: N; None: every step is computed.
        num_steps: the number of steps of the whole loop.
    """

    def __init__(self, interval: int | None, num_steps: int) -> None:
        self._interval = interval or 1
        self._num_steps = num_steps
        self._computed: list[tuple[int, torch.Tensor]] = []

    def forget(self) -> None:
        """Forget all predictions, because another network computes the next ones."""
        self._computed = []

    def __call__(self, step: int, predict: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return the prediction of a step, computed or forecast.

        Args:
            step: 0 … num_steps - 1; every call has the next one.
            predict: computes the prediction.
        """
        if self._is_computed(step):
            prediction = predict()
            self._computed = [*self._computed[-1:], (step, prediction)]
            return prediction
        (earlier, before), (later, after) = self._computed
        change = (after.float() - before.float()) * ((step - later) / (later - earlier))
        return (after.float() + change).to(after.dtype)

    def _is_computed(self, step: int) -> bool:
        is_at_an_end = step < _NUM_FIRST_STEPS or step >= self._num_steps - _NUM_LAST_STEPS
        is_due = (step - _NUM_FIRST_STEPS + 1) % self._interval == 0
        return is_at_an_end or is_due or len(self._computed) < 2
