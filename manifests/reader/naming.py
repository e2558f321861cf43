"""The names of a manifest's columns: how a job file renames them, and which of them rendermill reads itself."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rendermill.manifests.schema import MANIFEST_NAMES


@dataclass(frozen=True)
class ColumnNames:
    """The names of the columns of all files of a manifest.

    Attributes:
        renamed: The names by which the job knows columns, by their names in the files. None: the column keeps its name,
            and is the user's own even if it is named like an argument.
        arguments: The names of columns that pipelines take beside `MANIFEST_NAMES`.
        inputs: The names of those of them that hold images and videos.
    """

    renamed: Mapping[str, str | None] = field(default_factory=dict)
    arguments: frozenset[str] = frozenset()
    inputs: frozenset[str] = frozenset()

    def of(self, column: str) -> str:
        """Return the name by which the job knows a column of a file."""
        return self.renamed.get(column) or column

    def in_file(self, columns: Iterable[str]) -> dict[str, str]:
        """Return the names of a file's columns by the names by which the job knows them."""
        return {self.of(column): column for column in columns}

    def is_own(self, name: str) -> bool:
        """Return whether rendermill reads the column of a name itself; all others are the user's own."""
        is_known = name in MANIFEST_NAMES or name in self.arguments or name in self.inputs
        return is_known and not self._is_kept(name)

    def is_input(self, name: str) -> bool:
        """Return whether the column of a name holds images or videos that a pipeline takes."""
        return name in self.inputs and not self._is_kept(name)

    def _is_kept(self, name: str) -> bool:
        return name in self.renamed and self.renamed[name] is None
