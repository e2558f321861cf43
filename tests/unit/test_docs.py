"""The pages that explain the code name files and folders that exist."""

import re
from pathlib import Path

import pytest

from tests.support.commands import ROOT

PAGES = ("docs/design.md", "docs/deploy.md", "CONTRIBUTING.md")
FOLDERS = (
    "jobs",
    "actors",
    "models",
    "manifests",
    "tests",
    "deploy",
    "benchmarks",
    "shapes",
    "checkpoints",
    "examples",
)


@pytest.mark.parametrize("page", PAGES)
def test_every_path_of_a_page_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    named = set(re.findall(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./-]*", text))
    assert named
    assert not [path for path in sorted(named) if not (ROOT / path.rstrip(".")).exists()]


def test_the_layout_in_the_design_is_that_of_the_repository() -> None:
    text = (ROOT / "docs/design.md").read_text()
    layout = text.partition("## The layout")[2].partition("Beside them")[0]
    above: list[str] = []
    found: set[str] = set()
    for indent, name in re.findall(r"^    ( *)([\w.]+/?)  ", layout, re.MULTILINE):
        above = [*above[: len(indent) // 2], name.rstrip("/")]
        path = Path(*above)
        assert (ROOT / path).exists(), path
        found.add(str(path))
    real = {
        str(path.parent.relative_to(ROOT))
        for name in ("jobs", "actors", "models", "manifests")
        for path in (ROOT / name).rglob("__init__.py")
    }
    assert real <= found
