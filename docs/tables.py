"""Write docs/job.schema.json and the tables in docs/*.md from the code; with `--check`, only list outdated files.

A table is the text between `<!-- table: NAME -->` and `<!-- end -->`.
"""

import re
import sys
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).parents[1]))

from rendermill.actors.services import metrics
from rendermill.jobs.config.inputs import InputsConfig
from rendermill.jobs.config.job import Defaults, Job, ModelConfig, Pool
from rendermill.jobs.config.json_schema import schema_text
from rendermill.jobs.config.quantities import duration_text
from rendermill.manifests.schema import ERROR_COLUMNS, MANIFEST_COLUMNS, RECORD_COLUMNS, REJECTED_COLUMNS, Column
from rendermill.models.settings import Speedups

_MARKED = re.compile(r"(<!-- table: (?P<name>\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def columns_table(columns: tuple[Column, ...]) -> str:
    """Return a table with a row for each column: name, Arrow type, meaning."""
    rows = [f"| `{column.name}` | {column.type} | {column.meaning} |" for column in columns]
    return "\n".join(["| column | type | meaning |", "|---|---|---|", *rows]) + "\n"


def settings_table(section: type[BaseModel]) -> str:
    """Return a table with a row for each key of a section of the job file: name, default, meaning."""
    rows = []
    for name, field in section.model_fields.items():
        default = "required" if field.is_required() else _as_yaml(field.default)
        rows.append(f"| `{name}` | {default} | {field.description or ''} |")
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows]) + "\n"


def metrics_table() -> str:
    """Return a table with a row for each metric: name in Prometheus, labels, meaning."""
    rows = [
        f"| `{name}` | {', '.join(metric.info['tag_keys'])} | {metric.info['description']} |"
        for name, metric in metrics.EXPORTED.items()
    ]
    return "\n".join(["| metric | labels | meaning |", "|---|---|---|", *rows]) + "\n"


def _as_yaml(default: object) -> str:
    if isinstance(default, BaseModel):
        return "see below"
    if isinstance(default, timedelta):
        return f"`{duration_text(default)}`"
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
    "inputs": settings_table(InputsConfig),
    "pool": settings_table(Pool),
    "speedups": settings_table(Speedups),
    "metrics": metrics_table(),
}


def main() -> int:
    """Rewrite outdated files; with `--check`, list them and return 1."""
    folder, is_check = Path(__file__).parent, "--check" in sys.argv[1:]
    current = {folder / "job.schema.json": schema_text()}
    for page in sorted(folder.glob("*.md")):
        current[page] = _MARKED.sub(lambda match: match[1] + TABLES[match["name"]] + match[3], page.read_text())
    outdated = [page for page, text in current.items() if not page.exists() or page.read_text() != text]
    if is_check and outdated:
        print(f"docs: out of date: {', '.join(page.name for page in outdated)}; run `make format`", file=sys.stderr)
        return 1
    for page in outdated:
        page.write_text(current[page])
    return 0


if __name__ == "__main__":
    sys.exit(main())
