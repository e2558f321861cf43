"""Tests the statements of a model's certificate: renders one request a few times, with one thing changed each time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter

from rendermill.actors.engine.tuning.certificate import Certificate, Statement
from rendermill.actors.engine.tuning.changed_requests import arguments_set, with_another_seed, with_another_value
from rendermill.manifests.errors import one_line
from rendermill.manifests.request import Request
from rendermill.models.inputs import Inputs
from rendermill.models.parts.pipeline_state import seeded

_NUM_STEPS = 2
"""Enough for noise that a scheduler adds between steps; what follows is more of the same."""
_MAX_NUM_ERRORS = 3
"""The number of requests whose rendering may fail before the seed is left untested."""

RenderOne = Callable[[Request, Inputs], bytes]
"""Renders a request alone and returns all bits of its frames and its sound; may raise anything."""


class _NoTime(Exception):
    """The time for tests is used up."""


class Certifier:
    """Tests a model within a limit of time. The renderings are dropped.

    Args:
        render: renders with the model.
        wait: waits until the device has nothing else to do.
        seconds: the limit for all tests of this process; the next rendering is expected to take as long as the last.
        is_compiled: whether the first rendering compiles. That one does not count, because rendering needs it anyway.
        clock: returns seconds.
    """

    def __init__(
        self,
        render: RenderOne,
        wait: Callable[[], None],
        seconds: float,
        is_compiled: bool,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._render, self._wait, self._seconds, self._clock = render, wait, seconds, clock
        self._seconds_left, self._seconds_of_last = seconds, 0.0
        self._is_warm = not is_compiled
        self._num_errors = 0
        self._tried: set[str] = set()
        self._last_own: tuple[Request, bytes] | None = None

    def certify(self, known: Certificate, requests: Sequence[Request], inputs: Mapping[str, Inputs]) -> Certificate:
        """Return a certificate with what these requests allow to test beyond what is known.

        Args:
            requests: at least one; the one with the least work tests the seed, and the first one that sets an argument
                tests that argument. Each is rendered in two steps.
            inputs: the decoded inputs of requests that have any, by request hash.
        """
        self._seconds_of_last = self._seconds_of_last or known.seconds
        found = known
        if not (known.seed_decides.is_settled and known.seed_matters.is_settled) and self._num_errors < _MAX_NUM_ERRORS:
            request = min(requests, key=lambda request: request.shape.work)
            found = known.merged(self._of_seed(_in_few_steps(request), inputs.get(request.request_hash, {})))
        for request in requests:
            names = [name for name in arguments_set(request) if self._is_open(name, found)]
            if names:
                few_steps, own_inputs = _in_few_steps(request), inputs.get(request.request_hash, {})
                found = found.merged(Certificate(arguments=self._of_arguments(few_steps, own_inputs, names)))
        return replace(found, seconds=round(self._seconds_of_last, 3))

    def _is_open(self, name: str, known: Certificate) -> bool:
        return name not in self._tried and not (name in known.arguments and known.arguments[name].is_settled)

    def _of_seed(self, request: Request, inputs: Inputs) -> Certificate:
        try:
            self._check_time(num_renderings=3)
            own = self._own(request, inputs)
        except BaseException as error:  # a model may raise anything; the request fails in its own time
            not_tested = self._not_tested(error)
            return Certificate(not_tested, not_tested)

        def another_seed() -> bytes:
            self._check_time(num_renderings=2)  # what is tested next matters more
            return self._rendered(with_another_seed(request), inputs)

        matters = self._tested(
            lambda: another_seed() != own, "another seed gave other pixels", "another seed gave the same pixels"
        )
        # a rendering of another item lies between, so that what it left behind would show
        decides = self._tested(
            lambda: self._rendered(request, inputs, global_seed=2) == own,
            "the same request gave the same bits twice, under different global seeds",
            "the same request gave other pixels the second time, under other global seeds",
        )
        return Certificate(decides, matters)

    def _of_arguments(self, request: Request, inputs: Inputs, names: Sequence[str]) -> dict[str, Statement]:
        self._tried.update(names)
        try:
            own = self._own(request, inputs)
        except BaseException as error:
            return dict.fromkeys(names, self._not_tested(error))
        return {name: self._of_argument(request, inputs, name, own) for name in names}

    def _of_argument(self, request: Request, inputs: Inputs, name: str, own: bytes) -> Statement:
        """Return whether another value of an argument gives other pixels than the request's own."""
        changed = with_another_value(request, name)
        if changed is None:
            return Statement("not tested", "no other value of its type is known")
        values = f"{changed.other} in place of {changed.own}"
        return self._tested(
            lambda: self._rendered(changed.request, inputs) != own,
            f"{values} gave other pixels",
            f"{values} gave the same pixels",
        )

    def _tested(self, test: Callable[[], bool], proven: str, refuted: str) -> Statement:
        try:
            return Statement("proven", proven) if test() else Statement("refuted", refuted)
        except BaseException as error:
            return self._not_tested(error)

    def _not_tested(self, error: BaseException) -> Statement:
        if isinstance(error, _NoTime):
            reason = f"a rendering takes {self._seconds_of_last:.0f} s, and all tests may take {self._seconds:.0f} s"
            return Statement("not tested", reason)
        self._num_errors += 1
        return Statement("not tested", f"rendering failed with {type(error).__name__}: {one_line(error)}")

    def _own(self, request: Request, inputs: Inputs) -> bytes:
        """Render a request as it is, once."""
        if self._last_own is None or self._last_own[0] != request:
            self._check_time(num_renderings=2)  # alone it proves nothing
            self._last_own = request, self._rendered(request, inputs)
        return self._last_own[1]

    def _check_time(self, num_renderings: int) -> None:
        if num_renderings * self._seconds_of_last > self._seconds_left:
            raise _NoTime

    def _rendered(self, request: Request, inputs: Inputs, global_seed: int = 1) -> bytes:
        """Render a request under global seeds of Python, NumPy and torch.

        Raises:
            _NoTime: there is not enough time left.
        """
        self._check_time(num_renderings=1)
        self._wait()
        began = self._clock()
        with seeded(global_seed):
            pixels = self._render(request, inputs)
        if self._is_warm:
            self._seconds_of_last = self._clock() - began
            self._seconds_left -= self._seconds_of_last
        self._is_warm = True
        return pixels


def _in_few_steps(request: Request) -> Request:
    return replace(request, num_inference_steps=min(request.num_inference_steps, _NUM_STEPS))
