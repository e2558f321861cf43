"""Describes a checkpoint, and fetches it to where it is loaded: the same files, or an error.

`describe` runs in the driver, and reads only the small files and the headers of weights. `fetched` runs where the model
is loaded.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from huggingface_hub import hf_hub_download

from rendermill.actors.checkpoints import files as checkpoint_files
from rendermill.actors.checkpoints.contents import Component, read_contents
from rendermill.actors.checkpoints.files import LocalFiles, StoredFiles, git_blob_id, is_on_hub, open_files
from rendermill.manifests.errors import UserError
from rendermill.manifests.identity import blake2b_128
from rendermill.manifests.secrets import mask_secrets
from rendermill.manifests.storage.errors import masked_errors
from rendermill.manifests.storage.retries import with_retries
from rendermill.manifests.storage.urls import is_local, open_filesystem


class CheckpointChanged(Exception):
    """The files of a checkpoint are no longer those that the driver found."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as the driver found it.

    Attributes:
        source: a local folder, an fsspec URL, or a repository of the Hub.
        revision: the Hub's commit, resolved; None for a folder or URL.
        variant: of the weights; None: those without a variant in their names.
        pipeline_class: from `model_index.json`.
        configs: the JSON configs by component name, and `model_index`.
        components: the components with weights, by name.
        fingerprints: for each file, a value that changes with its content.
        identity: a hash of the names and contents of its weight and config files, 32 hex digits.
    """

    source: str
    revision: str | None
    variant: str | None
    pipeline_class: str
    configs: Mapping[str, Mapping[str, Any]]
    components: Mapping[str, Component]
    fingerprints: Mapping[str, Any]
    identity: str


def describe(source: str, revision: str | None, variant: str | None = None) -> Checkpoint:
    """Return what planning needs to know of a checkpoint, without downloading weights.

    Args:
        revision: the Hub's branch, tag or commit.
        variant: of the weights, such as `fp16`.

    Raises:
        UserError: it does not exist, is no diffusers pipeline, lacks a file, or has a damaged file, weights that are no
            safetensors, or code of its own.
    """
    files, commit = open_files(source, revision)
    contents = read_contents(source, files, variant)
    fingerprints = files.fingerprints()
    return Checkpoint(
        source=source,
        revision=commit,
        variant=variant,
        pipeline_class=contents.configs["model_index"]["_class_name"],
        configs=contents.configs,
        components=contents.components,
        fingerprints=fingerprints,
        identity=blake2b_128(fingerprints).hex(),
    )


@contextmanager
def fetched(checkpoint: Checkpoint, patience_seconds: float) -> Iterator[Path]:
    """Yield a local folder with the checkpoint. A remote one is fetched once per node.

    Args:
        patience_seconds: how long to try again if its store fails; the Hub's client has its own limit.

    Raises:
        CheckpointChanged: its files are not those that the driver found, before or after they were loaded.
    """
    folder = _fetch(checkpoint, patience_seconds)
    yield folder
    if not is_on_hub(checkpoint.source) and is_local(checkpoint.source):
        _check_local(checkpoint, folder)


@masked_errors()
def _fetch(checkpoint: Checkpoint, patience_seconds: float) -> Path:
    if is_on_hub(checkpoint.source):
        return _fetch_from_hub(checkpoint)
    if is_local(checkpoint.source):
        folder = Path(open_filesystem(checkpoint.source)[1])
        _check_local(checkpoint, folder)
        return folder
    folder = checkpoint_files.CACHE / "checkpoints" / checkpoint.identity
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not _is_whole(folder):
            _fetch_from_store(checkpoint, folder, patience_seconds)
    return folder


def _check_local(checkpoint: Checkpoint, folder: Path) -> None:
    try:
        found = LocalFiles(str(folder), checkpoint.source).fingerprints()
    except UserError as error:
        raise CheckpointChanged(str(error)) from error
    _check_same(checkpoint, found)


def _check_same(checkpoint: Checkpoint, found: Mapping[str, Any]) -> None:
    names = sorted(found.keys() | checkpoint.fingerprints)
    changed = [name for name in names if found.get(name) != checkpoint.fingerprints.get(name)]
    if changed:
        others = f" and {len(changed) - 1} others" if len(changed) > 1 else ""
        raise CheckpointChanged(
            f"checkpoint {mask_secrets(checkpoint.source)}: {changed[0]}{others} changed since the run was planned, or "
            "differs on this node; run the same command again once all of it is in its place"
        )


def _fetch_from_store(checkpoint: Checkpoint, folder: Path, patience_seconds: float) -> None:
    """Fetch every file; keep none of them if one is not what the driver found."""
    partial = folder.with_suffix(".partial")
    for old in (partial, folder):
        shutil.rmtree(old, ignore_errors=True)
    files = StoredFiles(checkpoint.source)
    try:
        _check_same(checkpoint, with_retries(patience_seconds)(files.fingerprints))
        for name in files.names:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            with_retries(patience_seconds)(files.filesystem.get_file, files.path(name), str(partial / name))
        _check_same(checkpoint, with_retries(patience_seconds)(StoredFiles(checkpoint.source).fingerprints))
        fetched_files = LocalFiles(str(partial), checkpoint.source).fingerprints()
        _contents_file(folder).write_text(json.dumps(fetched_files))
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _is_whole(folder: Path) -> bool:
    """Return whether a folder of the cache still holds what was fetched into it."""
    if not folder.is_dir():
        return False
    try:
        expected = json.loads(_contents_file(folder).read_text())
        return bool(LocalFiles(str(folder), str(folder)).fingerprints() == expected)
    except (OSError, ValueError, UserError):
        return False


def _contents_file(folder: Path) -> Path:
    """Return the path of the file with the sha256 of each file that was fetched into a folder of the cache."""
    return folder.with_suffix(".json")


def _fetch_from_hub(checkpoint: Checkpoint) -> Path:
    from diffusers import DiffusionPipeline  # imported where models are loaded, not where jobs are planned

    folder = Path(
        DiffusionPipeline.download(
            checkpoint.source, revision=checkpoint.revision, variant=checkpoint.variant, use_safetensors=True
        )
    )
    for name in _damaged(checkpoint, folder):  # in this machine's cache
        hf_hub_download(checkpoint.source, name, revision=checkpoint.revision, force_download=True)
    damaged = _damaged(checkpoint, folder)
    if damaged:
        raise CheckpointChanged(f"checkpoint {checkpoint.source}: {damaged[0]} is not the Hub's; fetch it again")
    return folder


def _damaged(checkpoint: Checkpoint, folder: Path) -> list[str]:
    """Return the names of downloaded files whose content is not the Hub's."""
    downloaded = LocalFiles(str(folder), checkpoint.source).fingerprints()
    return [
        name
        for name, sha256 in downloaded.items()
        if name in checkpoint.fingerprints and checkpoint.fingerprints[name] not in (sha256, git_blob_id(folder / name))
    ]
