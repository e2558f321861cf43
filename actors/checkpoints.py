"""Where a checkpoint comes from: a folder, an fsspec URL or the Hugging Face Hub; only safetensors.

`describe` runs in the driver and reads the small files alone; `fetch` runs where the model is loaded.
"""

import fnmatch
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from huggingface_hub import HfApi, hf_hub_download

from manifests.errors import UserError
from manifests.identity import blake2b_128
from manifests.storage import first_contact, is_local, masked_errors, open_filesystem, patience

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rendermill"
"""What this machine keeps between runs."""

_NOT_PART_OF_THE_MODEL = ("*.md", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.webp", "*.mp4", "LICENSE*", ".*", "*/.*")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_LIBRARIES = ("diffusers", "transformers")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as the driver found it.

    Attributes:
        source: a local folder, an fsspec URL, or a repository of the Hub.
        revision: the Hub's commit, resolved; None for a folder or URL.
        pipeline_class: from `model_index.json`.
        configs: component name → its JSON config, and `model_index`.
        identity: a hash over the names and contents of its weight and config files, 32 hex digits.
    """

    source: str
    revision: str | None
    pipeline_class: str
    configs: Mapping[str, Mapping[str, Any]]
    identity: str


def describe(source: str, revision: str | None) -> Checkpoint:
    """Read what planning needs of a checkpoint; downloads no weights.

    Raises:
        UserError: it is not there, is no diffusers pipeline, or has weights that are no safetensors or code of its own.
    """
    if is_on_hub(source):
        return _describe_hub(source, revision)
    if revision is not None:
        raise UserError(f"checkpoint {source}: only a checkpoint on the Hub has a revision; remove it")
    filesystem, root = open_filesystem(source)
    with first_contact(f"checkpoint {source}: cannot be read"):
        files = {path[len(root) :].lstrip("/"): path for path in filesystem.find(root)}
    if not files:
        raise UserError(f"checkpoint {source}: no such folder")
    kept = {name: path for name, path in sorted(files.items()) if _belongs(name)}

    def read(name: str) -> bytes:
        return bytes(filesystem.cat_file(kept[name]))

    _check_files(source, kept, read)
    configs = _read_configs(source, kept, read)
    if is_local(source):
        fingerprints: dict[str, Any] = _local_fingerprints(kept)
    else:
        fingerprints = {name: _remote_fingerprint(filesystem.info(path)) for name, path in kept.items()}
    pipeline_class = configs["model_index"]["_class_name"]
    return Checkpoint(source, None, pipeline_class, configs, blake2b_128(fingerprints).hex())


def is_on_hub(source: str) -> bool:
    """Whether a source names a repository of the Hub: `owner/name`, and no folder of that name is here."""
    return "://" not in source and source.count("/") == 1 and source[0] not in "./~" and not Path(source).exists()


@masked_errors()
def fetch(checkpoint: Checkpoint, patience_seconds: float) -> Path:
    """The checkpoint as a local folder; what is remote is fetched once a node.

    Args:
        patience_seconds: how long to try again where its store fails; the Hub's client has a patience of its own.
    """
    if is_on_hub(checkpoint.source):
        from diffusers import DiffusionPipeline  # imported where models are loaded, not where jobs are planned

        folder = DiffusionPipeline.download(checkpoint.source, revision=checkpoint.revision, use_safetensors=True)
        return Path(folder)
    if is_local(checkpoint.source):
        return Path(open_filesystem(checkpoint.source)[1])
    folder = CACHE / "checkpoints" / checkpoint.identity
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            filesystem, root = open_filesystem(checkpoint.source)
            for path in filesystem.find(root):
                name = path[len(root) :].lstrip("/")
                if _belongs(name):
                    (partial / name).parent.mkdir(parents=True, exist_ok=True)
                    patience(patience_seconds)(filesystem.get_file, path, str(partial / name))
            partial.rename(folder)
    return folder


def _describe_hub(source: str, revision: str | None) -> Checkpoint:
    with first_contact(f"checkpoint {source}: no such folder, and the Hub has no such model or cannot be reached"):
        info = HfApi().model_info(source, revision=revision, files_metadata=True)
    files = {file.rfilename: file for file in info.siblings or [] if _belongs(file.rfilename)}

    def read(name: str) -> bytes:
        return Path(hf_hub_download(source, name, revision=info.sha)).read_bytes()

    _check_files(source, files, read)
    configs = _read_configs(source, files, read)
    fingerprints = {name: file.lfs.sha256 if file.lfs else file.blob_id for name, file in sorted(files.items())}
    pipeline_class = configs["model_index"]["_class_name"]
    return Checkpoint(source, info.sha, pipeline_class, configs, blake2b_128(fingerprints).hex())


def _belongs(name: str) -> bool:
    return not any(fnmatch.fnmatch(name, pattern) for pattern in _NOT_PART_OF_THE_MODEL)


def _check_files(source: str, files: Mapping[str, Any], read: Callable[[str], bytes]) -> None:
    """Raise a `UserError` where weights are not safetensors, or lie elsewhere."""
    if "model_index.json" not in files:
        raise UserError(f"checkpoint {source}: it has no model_index.json, so it is no diffusers pipeline")
    folders_with_safetensors = {os.path.dirname(name) for name in files if name.endswith(".safetensors")}
    for name in files:
        is_pickle = any(fnmatch.fnmatch(name, pattern) for pattern in _PICKLES)
        if is_pickle and os.path.dirname(name) not in folders_with_safetensors:
            raise UserError(f"checkpoint {source}: {name} is a pickle, which can run code; convert it to safetensors")
        if name.endswith(".safetensors.index.json"):
            for shard in set(json.loads(read(name))["weight_map"].values()):
                if os.path.basename(shard) != shard or not shard.endswith(".safetensors"):
                    raise UserError(
                        f"checkpoint {source}: {name} names {shard!r}; it may name safetensors beside it alone"
                    )


def _read_configs(source: str, files: Mapping[str, Any], read: Callable[[str], bytes]) -> dict[str, dict[str, Any]]:
    configs = {"model_index": json.loads(read("model_index.json"))}
    _check_no_code(source, configs["model_index"], files)
    for component in configs["model_index"]:
        for name in (f"{component}/config.json", f"{component}/scheduler_config.json"):
            if name in files:
                configs[component] = json.loads(read(name))
    return configs


def _check_no_code(source: str, model_index: Mapping[str, Any], files: Collection[str]) -> None:
    """Raise a `UserError` where a pipeline's class or one of its components is not diffusers' or transformers' own."""
    if "_class_name" not in model_index:
        raise UserError(f"checkpoint {source}: its model_index.json names no pipeline class (`_class_name`)")
    for name, value in model_index.items():
        library = value[0] if isinstance(value, list) and value else None
        is_own = library not in _LIBRARIES or name == "_class_name" or f"{name}/{library}.py" in files
        if isinstance(library, str) and is_own:
            raise UserError(
                f"checkpoint {source}: {name} in its model_index.json is {value}, code of its own, which is never run; "
                f"only classes of {' and '.join(_LIBRARIES)} are"
            )


def _remote_fingerprint(info: Mapping[str, Any]) -> list[Any]:
    """What the store itself says of a file's content: its ETag or checksum, else its time of change."""
    for key in ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "mtime"):
        if info.get(key):
            return [info["size"], str(info[key])]
    return [info["size"]]


def _local_fingerprints(files: Mapping[str, str]) -> dict[str, Any]:
    """The sha256 of every file, remembered by path, size and time of change, since weights are large."""
    remembered_file = CACHE / "fingerprints.json"
    try:
        remembered = json.loads(remembered_file.read_text())
    except (OSError, ValueError):
        remembered = {}
    fingerprints, is_new = {}, False
    for name, path in files.items():
        status = os.stat(path)
        key = f"{os.path.realpath(path)}|{status.st_size}|{status.st_mtime_ns}"
        if key not in remembered:
            remembered[key] = _sha256_of_file(path)
            is_new = True
        fingerprints[name] = remembered[key]
    if is_new:
        remembered_file.parent.mkdir(parents=True, exist_ok=True)
        temporary = remembered_file.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(remembered))
        temporary.replace(remembered_file)
    return fingerprints


def _sha256_of_file(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
