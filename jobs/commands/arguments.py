"""The argument of a command, a job file or an output, and one line that helps if it is something else."""

from pathlib import Path

from rendermill.jobs.config.job_file import JobFile, read_job_file
from rendermill.manifests.errors import UserError
from rendermill.manifests.output.format import refuse_newer
from rendermill.manifests.output.layout import FORMAT_FILE
from rendermill.manifests.storage.errors import as_user_errors
from rendermill.manifests.storage.folder import Folder
from rendermill.manifests.storage.urls import absolute

_YAML = (".yaml", ".yml")
_PARQUET = b"PAR1"
_SECONDS_OF_RETRIES = 60.0
"""How long a command that looks at an output tries again while its store fails."""


def check_is_job_file(place: str) -> None:
    """Raise a `UserError` if a command that reads a job file was given an output, a manifest or a URL."""
    path = Path(place)
    if "://" in place:
        raise UserError("a URL, and a job file is read from a local disk", place=place)
    if (path / FORMAT_FILE).is_file():
        raise UserError(
            "an output, and no job file; give the job file that writes it, or use rendermill status, retry or verify, "
            "which take an output",
            place=place,
        )
    if path.is_dir():
        within = sorted(file.name for file in path.iterdir() if file.suffix in _YAML)
        hint = f"; there are {', '.join(within[:3])} in it" if within else ""
        raise UserError(f"a folder, and no job file{hint}", place=place)
    if _begins_with(path, _PARQUET):
        raise UserError("a Parquet file, and no job file; a job file names it as its `manifest`", place=place)


def output_folder(place: str, preset: str | None, date: str | None) -> Folder:
    """Return the output that a command works on.

    Args:
        place: A folder or URL that a job writes, or the job file.
        preset: As for `read_job_file`; only a job file has any.
        date: As for `read_job_file`; only a job file has one.

    Raises:
        UserError: It is neither. The text says what it seems to be.
    """
    path, job_file = Path(place), _job_file(place, preset, date)
    if job_file is not None:
        return _existing(job_file.job.output, f"{place}: its output")
    if preset or date:
        raise UserError("--environment and --date are for a job file, and this is none", place=place)
    if "://" not in place and path.exists() and not (path / FORMAT_FILE).is_file():
        around = next((folder for folder in path.absolute().parents if (folder / FORMAT_FILE).is_file()), None)
        if around is not None:
            raise UserError(f"lies in output {around}; give that", place=place)
        if not path.is_dir():
            kind = "Parquet file" if _begins_with(path, _PARQUET) else "file"
            raise UserError(
                f"a {kind}, and no output; give the folder or URL that a job writes, or its job file", place=place
            )
    return _existing(place, "output")


def _job_file(place: str, preset: str | None, date: str | None) -> JobFile | None:
    path = Path(place)
    is_local = "://" not in place
    return read_job_file(place, (), preset, date) if is_local and path.is_file() and path.suffix in _YAML else None


def _existing(url: str, what: str) -> Folder:
    folder = Folder(absolute(url), _SECONDS_OF_RETRIES)
    with as_user_errors(f"{what} {folder.url}: cannot be read"):
        stored = folder.read(FORMAT_FILE)
    if stored is not None:
        refuse_newer(folder.url, stored)
        return folder
    if "://" not in folder.url and not Path(folder.url).exists():
        raise UserError(f"{what} {folder.url}: no such folder; rendermill generate writes one")
    raise UserError(f"{what} {folder.url}: no {FORMAT_FILE} there, so it is no output of rendermill")


def _begins_with(path: Path, magic: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError:
        return False
