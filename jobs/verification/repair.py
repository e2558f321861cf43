"""`rendermill verify --repair`: drop records whose media are broken, so that the next run renders their items."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa

from rendermill.jobs.running.run_file import new_run_id
from rendermill.manifests.arrow.hash_set import HASH
from rendermill.manifests.errors import UserError
from rendermill.manifests.identity import item_key
from rendermill.manifests.output.fence import FencedFolder
from rendermill.manifests.output.format import stored_format
from rendermill.manifests.output.layout import FORMAT_FILE, is_written_here
from rendermill.manifests.output.lease import Lease
from rendermill.manifests.output.ledger.ledger import Ledger
from rendermill.manifests.storage.folder import Folder


@dataclass
class Broken:
    """The damage that can be repaired.

    Attributes:
        items: The ids and sample indices of records whose media are missing or damaged.
        nameless: Media files that no record names, and shards that contain such files.
    """

    items: list[tuple[str, int]] = field(default_factory=list)
    nameless: list[str] = field(default_factory=list)

    @property
    def written_here(self) -> list[str]:
        """The media without a record that have names as rendermill writes them."""
        return [name for name in self.nameless if is_written_here(name)]


@dataclass(frozen=True)
class Repaired:
    """The numbers of repairs.

    Attributes:
        num_dropped: The number of records that were removed.
        num_noted: The number of media without a record that a later run removes.
        num_left: The number of media without a record that rendermill did not write, and that stay.
    """

    num_dropped: int
    num_noted: int
    num_left: int

    def lines(self, url: str) -> Sequence[str]:
        """Return the same as lines of text.

        Args:
            url: The output's.
        """
        lines = []
        if self.num_dropped:
            lines.append(
                f"repaired: {self.num_dropped} records were dropped; to render their items again, run rendermill "
                "generate with the job file"
            )
        if self.num_noted:
            lines.append(f"repaired: {self.num_noted} media without a record are removed by a later run")
        if self.num_left:
            lines.append(f"left: {self.num_left} files in {url}/media have names that rendermill does not write")
        return lines or ["repaired: nothing, as nothing had to be"]


@contextmanager
def opened_for_repair(output: Folder, say: Callable[[str], None]) -> Iterator[Ledger]:
    """Open the ledger of an output under a lease, so that no run writes there meanwhile.

    Args:
        say: Takes a line for the user if this has to wait.

    Raises:
        UserError: A run writes there.
    """
    with Lease(output, new_run_id(), say=say) as lease:
        stored = stored_format(output)
        if stored is None:
            raise UserError(f"its {FORMAT_FILE} is gone", ("output",), output.url)
        ledger = Ledger(FencedFolder.of(output, lease), *stored)
        for problem in ledger.problems:
            say(f"output {output.url}: {problem}")
        yield ledger


def repair(ledger: Ledger, broken: Broken) -> Repaired:
    """Drop the records whose media are broken, and note media without a record, which a later run removes.

    Files that cannot be read are left as they are: a store that does not answer has not lost anything.
    """
    keys = pa.array([item_key(item_id, sample_index) for item_id, sample_index in broken.items], HASH)
    num_dropped = ledger.drop(keys) if broken.items else 0
    nameless = broken.written_here
    if nameless:
        ledger.note_duplicates(pa.table({"path": nameless}))
    ledger.close()
    return Repaired(num_dropped, len(nameless), len(broken.nameless) - len(nameless))
