"""The result of `rendermill verify`, as data and as lines of text."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from rendermill.jobs.verification.repair import Repaired

OK, DAMAGED = 0, 3
"""The exit statuses of `verify`."""

_NUM_EXAMPLES = 20


@dataclass
class Problems:
    """The problems of one kind.

    Attributes:
        num: The number of problems.
        examples: The first few, each in one line.
    """

    num: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        """Count one more."""
        self.num += 1
        if len(self.examples) < _NUM_EXAMPLES:
            self.examples.append(example)

    def lines(self, title: str) -> Iterator[str]:
        """Yield a line with the number of problems, and one for each example; none if there are no problems."""
        if not self.num:
            return
        yield f"{title}: {self.num}"
        yield from (f"  {example}" for example in self.examples)
        if self.num > len(self.examples):
            yield f"  … and {self.num - len(self.examples)} more"


@dataclass
class Report:
    """The result of `verify`.

    Attributes:
        num_records: The number of records that were read.
        num_bytes: The number of bytes of media that were read.
        missing: Records whose media file is missing.
        damaged: Media files that differ from their records.
        unreadable: Media files that could not be read.
        without_record: Media that no record names.
        num_waiting: The number of replaced media that a later run removes.
        again: The number of items that were rendered again, by verdict.
        different: Items that came out different when they were rendered again.
        num_inputs: The number of inputs of records that were to be read again, each as often as a record has it.
        changed_inputs: Inputs that have another content than when they were rendered.
        unreadable_inputs: Inputs that cannot be read any more.
        is_repairable: Whether `--repair` would change something.
        repaired: What `--repair` did about missing and damaged media and those without a record; None if it was not
            asked for.
    """

    num_records: int = 0
    num_bytes: int = 0
    missing: Problems = field(default_factory=Problems)
    damaged: Problems = field(default_factory=Problems)
    unreadable: Problems = field(default_factory=Problems)
    without_record: Problems = field(default_factory=Problems)
    num_waiting: int = 0
    again: Counter[str] = field(default_factory=Counter)
    different: Problems = field(default_factory=Problems)
    num_inputs: int = 0
    changed_inputs: Problems = field(default_factory=Problems)
    unreadable_inputs: Problems = field(default_factory=Problems)
    is_repairable: bool = False
    repaired: Repaired | None = None

    @property
    def status(self) -> int:
        """The exit status."""
        problems = [self.unreadable, self.different, self.changed_inputs, self.unreadable_inputs]
        if self.repaired is None:
            problems += [self.missing, self.damaged, self.without_record]
        elif self.repaired.num_left:
            return DAMAGED
        return DAMAGED if any(problem.num for problem in problems) else OK

    def lines(self, url: str) -> Iterator[str]:
        """Yield the report as lines of text.

        Args:
            url: The output's.
        """
        num_good = self.num_records - self.missing.num - self.damaged.num - self.unreadable.num
        yield f"files: {num_good} of {self.num_records} are as recorded ({self.num_bytes:,} bytes)"
        yield from self.missing.lines("records without media")
        yield from self.damaged.lines("damaged files")
        yield from self.unreadable.lines("files that cannot be read")
        yield from self.without_record.lines("media without a record")
        if self.num_waiting:
            yield f"replaced media that a later run removes: {self.num_waiting}"
        yield from (f"rendered again: {count} {verdict}" for verdict, count in self.again.items())
        yield from self.different.lines("items that came out different")
        if self.num_inputs:
            num_same = self.num_inputs - self.changed_inputs.num - self.unreadable_inputs.num
            yield f"inputs: {num_same} of {self.num_inputs} are as they were"
        yield from self.changed_inputs.lines("inputs that have changed")
        yield from self.unreadable_inputs.lines("inputs that cannot be read")
        if self.repaired is not None:
            yield from self.repaired.lines(url)
        elif self.is_repairable:
            yield f"to repair it: rendermill verify {url} --repair"
        yield "no problems found" if self.status == OK else "problems found"
