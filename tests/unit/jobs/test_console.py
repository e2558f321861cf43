"""What commands print: tables, on a terminal and elsewhere."""

from io import StringIO
from pathlib import Path

import pytest

from rendermill.jobs.console.screen import Screen
from rendermill.jobs.console.tables import Table, print_table

TABLE = Table(("model", "to render"), [("sana", "64"), ("http://me:secret@host \x1b[31m[red]", "1200")], 1)


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_table_is_plain_columns_where_nobody_looks() -> None:
    out = StringIO()
    print_table(Screen(out, Path("log")), Table(("model", "shape", "to render"), [("sana", "64x32", "7")], 2))
    assert out.getvalue() == "model  shape  to render\nsana   64x32          7\n"


@pytest.mark.parametrize("out", [StringIO(), Terminal()])
def test_a_table_has_no_secrets_and_nothing_that_a_terminal_would_obey(
    out: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    print_table(Screen(out, Path("log")), TABLE)
    text = out.getvalue()
    assert "http://me:***@host \N{REPLACEMENT CHARACTER}[31m[red]" in text
    assert "secret" not in text
    assert "1200" in text
    assert ("─" in text) == out.isatty()
