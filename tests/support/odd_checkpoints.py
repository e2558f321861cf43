"""Checkpoints that are odd in one way each, derived from the repository's: for tables of what renders and what not."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

UNET = "diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 + "\nsize 4072064\n"

Change = Callable[[Path], None]


def change(file: Path, **content: Any) -> None:
    """Set keys of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | content))


def rewritten(file: str, tensors: Callable[[dict[str, torch.Tensor]], Mapping[str, torch.Tensor]]) -> Change:
    """Replace the tensors of a file; what is stored has no metadata."""

    def rewrite(folder: Path) -> None:
        changed = tensors(load_file(folder / file))
        save_file({name: tensor.clone() for name, tensor in changed.items()}, folder / file)

    return rewrite


def renamed(file: str, name: Callable[[str], str]) -> Change:
    return rewritten(file, lambda tensors: {name(key): tensor for key, tensor in tensors.items()})


def without(file: str, name: str) -> Change:
    return rewritten(file, lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name})


def text(file: str, content: str | bytes) -> Change:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / file).parent.mkdir(exist_ok=True) or (folder / file).write_bytes(data)


def keys(file: str, **content: Any) -> Change:
    return lambda folder: change(folder / file, **content)


def removed(name: str) -> Change:
    def remove(folder: Path) -> None:
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()

    return remove


def in_turn(*changes: Change) -> Change:
    def change_all(folder: Path) -> None:
        for some in changes:
            some(folder)

    return change_all


def cut(file: str, num_bytes: int) -> Change:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:num_bytes])


def sharded(component: str, weights: str = "diffusion_pytorch_model", variant: str = "") -> Change:
    """Split a component's weights in three; a variant is written as in `model.fp16-00001-of-00003.safetensors`."""

    def split(folder: Path) -> None:
        whole = folder / component / f"{weights}.safetensors"
        tensors = load_file(whole)
        files = [f"{weights}{variant}-0000{part}-of-00003.safetensors" for part in (1, 2, 3)]
        for part, file in enumerate(files):
            own = dict(list(tensors.items())[part::3])
            save_file(own, folder / component / file, {"format": "pt"})
        weight_map = {name: files[number % 3] for number, name in enumerate(tensors)}
        index = folder / component / f"{weights}.safetensors.index{variant}.json"
        index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        whole.unlink()

    return split


def as_variant(variant: str, is_copied: bool = False) -> Change:
    """Give every file of weights the variant in its name."""

    def rename(folder: Path) -> None:
        for file in list(folder.rglob("*.safetensors")):
            target = file.with_name(file.name.replace(".safetensors", f".{variant}.safetensors"))
            shutil.copy(file, target) if is_copied else file.rename(target)

    return rename


def linked(name: str) -> Change:
    """Move a file or folder away, and leave a link in its place."""

    def link(folder: Path) -> None:
        away = folder.parent / "away" / name
        away.parent.mkdir(parents=True, exist_ok=True)
        (folder / name).rename(away)
        (folder / name).symlink_to(away)

    return link


def as_snapshot(folder: Path) -> None:
    """Lay a checkpoint out as the Hub's cache does: links to files that are named by their content."""
    for number, file in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        blob = folder.parent / "blobs" / f"{number:040x}"
        blob.parent.mkdir(exist_ok=True)
        file.rename(blob)
        file.symlink_to(Path(*[".."] * len(file.relative_to(folder).parts)) / "blobs" / blob.name)
