"""Makes sure that an error costs only the item at fault: the other items of a failed batch are rendered one by one."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from rendermill.actors.engine.outcome import Encoded, Outcome, Outcomes, completed, failed
from rendermill.actors.engine.reporter import Reporter
from rendermill.manifests.errors import one_line
from rendermill.manifests.request import Request

_MAX_ERROR_LENGTH = 2000


class Isolation:
    """Turns errors into outcomes, and reports them.

    Args:
        dtype: of each component of the model by name, as in `Settings.dtype`.
    """

    def __init__(self, reporter: Reporter, dtype: Mapping[str, str]) -> None:
        self._reporter, self._dtype = reporter, dtype

    def failure(self, request: Request, error: BaseException, attempt: int) -> Outcome:
        """Return the outcome of a request that raised an error."""
        self._reporter.item_failed(request, attempt, error)
        return failed(request, type(error).__name__, one_line(error, max_length=_MAX_ERROR_LENGTH), attempt)

    def fail_as_nonfinite(self, outcome: Outcome) -> None:
        """Turn the outcome of an item that was rendered as NaN or infinity into a failure."""
        outcome.error_type = "NonFinite"
        outcome.error = f"the render came out as NaN or infinity in {self._dtype}; try float32"
        self._reporter.item_failed(outcome.request, outcome.attempt, None)

    def failures(self, requests: Sequence[Request], error: BaseException, attempt: int) -> Outcomes:
        """Return the outcomes of requests that failed together."""
        return completed([self.failure(request, error, attempt) for request in requests])

    def one_by_one(
        self, items: Sequence[Encoded], render: Callable[[Sequence[Encoded], int], Outcomes], attempt: int
    ) -> Iterator[Outcomes]:
        """Render each item alone, so that the one at fault fails alone.

        Args:
            items: of a batch that failed together.
            render: starts to render items, given the number of the attempt.
            attempt: the number of the attempt at the whole batch.
        """
        for item in items:
            try:
                outcomes = render([item], attempt + 1)
            except BaseException as error:  # a model may raise anything; signals arrive in another thread
                outcomes = self.failures([item.request], error, attempt + 1)
            yield outcomes
