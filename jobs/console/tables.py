"""Tables: by rich on a terminal; elsewhere plain text in columns, which scripts may rely on."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from rendermill.jobs.console.screen import Screen, printable
from rendermill.manifests.secrets import mask_secrets

_GAP = "  "


@dataclass(frozen=True)
class Table:
    """Rows of texts below their heads.

    Attributes:
        num_text_columns: The number of columns, from the left, that hold words; the others hold numbers.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_text_columns: int

    def lines(self) -> list[str]:
        """Return the table as plain text: words are aligned left, numbers right."""
        rows = [self.heads, *self.rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return [_GAP.join(map(self._aligned, row, widths, range(len(row)))).rstrip() for row in rows]

    def _aligned(self, cell: str, width: int, column: int) -> str:
        return cell.ljust(width) if column < self.num_text_columns else cell.rjust(width)


def print_table(screen: Screen, table: Table) -> None:
    """Print a table without secrets and control characters.

    Raises:
        ReaderGone: Nobody reads the output any more.
        UserError: The output cannot be written, for example because a disk is full.
    """
    if not screen.out.isatty():
        for line in table.lines():
            screen.line(line)
        return
    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, head in enumerate(table.heads):
        shown.add_column(head, justify="left" if column < table.num_text_columns else "right")
    for row in table.rows:
        shown.add_row(*(Text(printable(mask_secrets(cell))) for cell in row))
    console = Console(file=screen.out)
    with console.capture() as capture:
        console.print(shown)
    screen.text(capture.get().rstrip("\n"))
