"""The wheel and the source distribution: what is in them, and a job run by an installed wheel among foreign packages.

The environment that the wheel is installed into is empty, but for a `.pth` file that adds the packages of the running
one: downloading torch again would take minutes.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.commands import ROOT, Rendermill

FOREIGN = "raise ImportError('a package of the user, which rendermill should not import')\n"


def run(*command: str | Path, cwd: Path, environment: Mapping[str, str] | None = None) -> str:
    finished = subprocess.run(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=280
    )
    assert finished.returncode == 0, finished.stdout
    return finished.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the image is built from, where earlier builds left nothing."""
    folder = tmp_path_factory.mktemp("source")
    kept = [line[1:] for line in (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"]
    for name in tracked(*kept):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    return built(source, source / "wheel")


@pytest.fixture
def environment(tmp_path: Path, wheel: Path) -> Iterator[Path]:
    """The programs of a new environment with the wheel."""
    folder = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=tmp_path)
    programs = folder / "bin"
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", programs / "python")
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    packages = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    others = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    Path(packages, "others.pth").write_text("\n".join(others))
    return programs


def tracked(*paths: str) -> set[str]:
    """The files of the repository below some paths."""
    return set(run("git", "ls-files", "-z", "--", *paths, cwd=ROOT).split("\0")) - {""}


def built(source: Path, folder: Path) -> Path:
    """The wheel that pip builds of a folder or an archive."""
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source, cwd=folder.parent)
    (wheel,) = folder.glob("*.whl")
    return wheel


def modules(wheel: Path) -> set[str]:
    """The files of a wheel, without those that describe it."""
    names = set(zipfile.ZipFile(wheel).namelist())
    return {name for name in names if ".dist-info/" not in name}


def test_the_wheel_holds_every_module_below_one_name(wheel: Path) -> None:
    folders = tracked("jobs", "actors", "models", "manifests")
    assert len(folders) > 100
    links = {f"rendermill/{name}" for name in ("jobs", "actors", "models", "manifests")}
    assert modules(wheel) == {f"rendermill/{name}" for name in folders} | (tracked("rendermill") - links)


def test_a_source_distribution_gives_the_same_wheel(source: Path, wheel: Path, tmp_path: Path) -> None:
    program = f"import setuptools.build_meta as backend; print(backend.build_sdist({str(tmp_path)!r}))"
    run(sys.executable, "-c", program, cwd=source)
    (archive,) = tmp_path.glob("rendermill-*.tar.gz")
    assert modules(built(archive, tmp_path / "wheel")) == modules(wheel)


def test_an_installed_wheel_runs_a_job_from_a_folder_with_foreign_packages(
    tmp_path: Path, environment: Path, checkpoints: Path
) -> None:
    mine = tmp_path / "my-jobs"
    for name in ("jobs", "actors", "models", "manifests"):
        (mine / name).mkdir(parents=True)
        (mine / name / "__init__.py").write_text(FOREIGN)
    without = ("PYTHONPATH", "RAY_ADDRESS", "VIRTUAL_ENV")
    clean = {name: value for name, value in os.environ.items() if name not in without}
    clean |= {"RAY_USAGE_STATS_ENABLED": "0", "PATH": f"{environment}:{os.environ['PATH']}"}
    assert run("rendermill", "--version", cwd=mine, environment=clean) == f"rendermill {version('rendermill')}\n"
    python = environment / "python"
    where = run(python, "-c", "import rendermill; print(rendermill.__file__)", cwd=mine, environment=clean)
    assert where.startswith(f"{environment.parent}/")

    rendermill = Rendermill(mine, checkpoints, clean)
    rendermill.model("sana", "sana-shapes")
    rendermill.manifest([{"prompt": "a red circle"}])
    # `python -m` puts the folder, with its foreign packages, first on the path
    out = run(python, "-m", "rendermill", "generate", rendermill.write_job(), cwd=mine, environment=clean)
    assert "1 items finished, 0 failed, 0 rejected" in out
    assert len(rendermill.table("metadata")) == 1
