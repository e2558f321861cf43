"""Writes the tables of docs/*.md from the code that defines them; with `--check` only says whether they are up to date.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`.
"""

import re
import sys
from pathlib import Path

from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).parents[1]))

from jobs.config import Defaults, Job, ModelConfig, Pool
from manifests.schema import ERROR_COLUMNS, MANIFEST_COLUMNS, RECORD_COLUMNS, REJECTED_COLUMNS, Column

_MARKED = re.compile(r"(<!-- table: (?P<name>\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def columns_table(columns: tuple[Column, ...]) -> str:
    """A row a column: name, Arrow type, meaning."""
    rows = [f"| `{column.name}` | {column.type} | {column.meaning} |" for column in columns]
    return "\n".join(["| column | type | meaning |", "|---|---|---|", *rows]) + "\n"


def settings_table(section: type[BaseModel]) -> str:
    """A row a key of the job file: name, default, meaning."""
    rows = []
    for name, field in section.model_fields.items():
        default = "required" if field.is_required() else _as_yaml(field.default)
        rows.append(f"| `{name}` | {default} | {field.description or ''} |")
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows]) + "\n"


def _as_yaml(default: object) -> str:
    if isinstance(default, BaseModel):
        return "see below"
    words = {None: "null", True: "true", False: "false"}
    return f"`{words[default]}`" if isinstance(default, bool | None) else f"`{default}`"


TABLES = {
    "manifest": columns_table(MANIFEST_COLUMNS),
    "record": columns_table(RECORD_COLUMNS),
    "failure": columns_table(ERROR_COLUMNS),
    "rejected": columns_table(REJECTED_COLUMNS),
    "job": settings_table(Job),
    "model": settings_table(ModelConfig),
    "defaults": settings_table(Defaults),
    "pool": settings_table(Pool),
}


def main() -> int:
    """Rewrite the tables, or with `--check` name the files whose tables are out of date."""
    is_check, outdated = "--check" in sys.argv[1:], []
    for page in sorted(Path(__file__).parent.glob("*.md")):
        text = page.read_text()
        current = _MARKED.sub(lambda match: match[1] + TABLES[match["name"]] + match[3], text)
        if current != text:
            outdated.append(page.name)
            if not is_check:
                page.write_text(current)
    if is_check and outdated:
        print(f"docs: out of date: {', '.join(outdated)}; run `make format`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
