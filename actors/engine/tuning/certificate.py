"""The certificate of a model: a verdict on its seed and on each argument, with a reason. No torch here."""

from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["proven", "refuted", "not tested"]

_MIN_SECONDS = 60.0
_SHARE = 0.01


def limit_of_time(planned_seconds: float) -> float:
    """Return the seconds that tests for a certificate may take: one minute or 1 % of the planned run, if that is more.

    Args:
        planned_seconds: the time that a process is expected to render; 0: unknown.
    """
    return max(_MIN_SECONDS, _SHARE * planned_seconds)


class SeedDoesNotDecide(Exception):
    """Strict mode was asked for, and tests found that it cannot be kept."""


@dataclass(frozen=True)
class Statement:
    """The verdict on one statement, and in words what it rests on."""

    verdict: Verdict
    reason: str

    @property
    def is_settled(self) -> bool:
        """Whether the statement was tested."""
        return self.verdict != "not tested"


_NOT_TESTED = Statement("not tested", "no item has been rendered yet")
_STRENGTH: dict[Verdict, int] = {"not tested": 0, "proven": 1, "refuted": 2}


@dataclass
class Certificate:
    """The statements that were tested with one model and its settings, on one kind of device with its library versions.

    Attributes:
        seed_decides: whether the same request gives the same bits, whatever the process rendered or drew before.
        seed_matters: whether another seed gives other pixels.
        arguments: by name of an argument that some request sets, whether another value gives other pixels.
        seconds: the time that one rendering for a test took; 0: unknown.
    """

    seed_decides: Statement = _NOT_TESTED
    seed_matters: Statement = _NOT_TESTED
    arguments: dict[str, Statement] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def statements(self) -> dict[str, Statement]:
        """The verdicts by statement, in words."""
        effects = {f"{name} has an effect": statement for name, statement in sorted(self.arguments.items())}
        return {"the seed decides": self.seed_decides, "the seed matters": self.seed_matters, **effects}

    def require_seed(self) -> None:
        """Check that strict mode may render.

        Raises:
            SeedDoesNotDecide: a test refuted that the seed decides.
        """
        if self.seed_decides.verdict == "refuted":
            reason = self.seed_decides.reason
            raise SeedDoesNotDecide(
                f"{reason}, so strict mode cannot be kept; reproducibility: fast renders with this model"
            )

    def merged(self, other: "Certificate") -> "Certificate":
        """Return both certificates as one: what was refuted once stays refuted."""
        names = self.arguments.keys() | other.arguments.keys()
        return Certificate(
            _stronger(self.seed_decides, other.seed_decides),
            _stronger(self.seed_matters, other.seed_matters),
            {
                name: _stronger(self.arguments.get(name, _NOT_TESTED), other.arguments.get(name, _NOT_TESTED))
                for name in names
            },
            other.seconds or self.seconds,
        )


def _stronger(one: Statement, other: Statement) -> Statement:
    is_one = other == _NOT_TESTED or _STRENGTH[one.verdict] > _STRENGTH[other.verdict]
    return one if is_one else other
