"""Steps whose prediction is forecast from earlier ones instead of computed."""

from collections.abc import Callable

import torch

_NUM_FIRST_STEPS, _NUM_LAST_STEPS = 3, 2
"""They decide on the composition and on the details, and are always computed."""


class Forecast:
    """Computes every so many-th step's prediction and extends the line through the last two to those in between.

    That is TaylorSeer of first order on the denoiser's output (https://huggingface.co/papers/2503.06923; diffusers'
    `TaylorSeerCacheConfig` in its lite mode). Which steps are computed depends on their number alone, unlike where a
    threshold decides, so that an item does not depend on its batch.

    Args:
        interval: 2: every other step is computed; None: every one.
        num_steps: of the whole loop.
    """

    def __init__(self, interval: int | None, num_steps: int) -> None:
        self._interval = interval or 1
        self._num_steps = num_steps
        self._computed: list[tuple[int, torch.Tensor]] = []

    def forget(self) -> None:
        """Another network predicts from here on."""
        self._computed = []

    def __call__(self, step: int, predict: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The prediction at a step, 0 … num_steps - 1; steps come in order."""
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
