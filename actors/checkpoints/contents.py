"""Checks that a checkpoint is complete, from its small files and the headers of its weights only."""

import fnmatch
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from rendermill.actors.checkpoints.files import CheckpointFiles
from rendermill.actors.checkpoints.safetensors_header import GIT_LFS_POINTER, DamagedFile, Tensor
from rendermill.manifests.errors import UserError
from rendermill.manifests.storage.errors import as_user_errors
from rendermill.models.inspection.sources import pipeline_modules

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_LEFT_BY_TRAINING = ("training_args.bin", "optimizer*", "random_states_*", "rng_state*", "scheduler.*", "scaler.*")
_LIBRARIES = ("diffusers", "transformers", *sorted(pipeline_modules()))
"""The libraries of classes: the two, and the modules in which diffusers has pipelines with classes of their own."""
_WEIGHTS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
_VARIANT = re.compile(rf"({'|'.join(_WEIGHTS.values())})(-\d+-of-\d+)?\.(?P<variant>\w+)(-\d+-of-\d+)?\.safetensors")
_VARIANT_OF_INDEX = re.compile(rf"({'|'.join(_WEIGHTS.values())})\.safetensors\.index\.(?P<variant>\w+)\.json")
_VOCABULARIES = ("tokenizer.json", "spiece.model", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt")
_PACKAGES_OF_QUANTIZATION = {"bitsandbytes": "bitsandbytes", "gguf": "gguf", "torchao": "torchao"} | {
    "quanto": "optimum.quanto", "modelopt": "modelopt", "gptq": "gptqmodel", "awq": "gptqmodel"
}  # fmt: skip


@dataclass(frozen=True)
class Component:
    """A component of a pipeline that has weights.

    Attributes:
        library: `diffusers` or `transformers`.
        class_name: of the library.
        tensors: by name, as the headers of its files have them.
        is_quantized: whether its tensors are stored in a form of their own.
    """

    library: str
    class_name: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    is_quantized: bool


@dataclass(frozen=True)
class Contents:
    """The content of a checkpoint's small files.

    Attributes:
        configs: component name → its JSON config, and `model_index`.
        components: those with weights, by name.
    """

    configs: Mapping[str, Mapping[str, Any]]
    components: Mapping[str, Component]


def read_contents(source: str, files: CheckpointFiles, variant: str | None) -> Contents:
    """Read a checkpoint's small files, and check that everything needed for loading exists.

    Args:
        variant: of the weights, such as `fp16`.

    Raises:
        UserError: names the file that is missing, damaged, or of a kind that is not loaded.
    """
    return _Reader(source, files, variant).contents()


class _Reader:
    def __init__(self, source: str, files: CheckpointFiles, variant: str | None) -> None:
        self._source, self._files, self._variant = source, files, variant
        self._names = set(files.names)

    def contents(self) -> Contents:
        if "model_index.json" not in self._names:
            raise self._problem("it has no model_index.json, so it is no diffusers pipeline")
        self._check_pickles()
        self._check_indexes()
        model_index = self._json("model_index.json")
        self._check_no_code(model_index)
        configs, components = {"model_index": model_index}, {}
        for name, (library, class_name) in _parts(model_index).items():
            config = self._config(name)
            if config is not None:
                configs[name] = config
            if name.startswith("tokenizer"):
                self._check_tokenizer(name)
            elif name.endswith("scheduler"):
                if config is None:
                    raise self._lacks(f"{name}/scheduler_config.json")
            elif config is None and not self._holds_weights(name):
                self._check_preprocessor(name)
            elif config is None:
                raise self._lacks(f"{name}/config.json")
            else:
                components[name] = self._component(name, library, class_name, config)
        if self._variant is not None and not any(self._has_variant(name) for name in components):
            known = ", ".join(sorted({variant for name in components for variant in self._variants(name)}))
            raise self._problem(f"it has no weights of the variant {self._variant!r}, but of {known or 'none'}")
        return Contents(configs, components)

    def _problem(self, words: str) -> UserError:
        return UserError(words, ("checkpoint",), self._source)

    def _lacks(self, file: str) -> UserError:
        return self._problem(f"it has no {file}, and its model_index.json names {file.partition('/')[0]}")

    def _json(self, name: str) -> dict[str, Any]:
        data = self._files.read(name)
        if data.startswith(GIT_LFS_POINTER):
            raise self._problem(f"{name} is a pointer of Git LFS and not the file itself; fetch it with: git lfs pull")
        if not data.strip():
            raise self._problem(f"{name} is empty; copy it again")
        if data.startswith(b"\xef\xbb\xbf"):
            raise self._problem(f"{name} begins with a byte order mark; save it as UTF-8 without one")
        try:
            content = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._problem(f"{name} is no JSON; copy it again") from error
        if not isinstance(content, dict):
            raise self._problem(f"{name} should hold keys and values, and holds a {type(content).__name__}")
        return content

    def _check_pickles(self) -> None:
        folders_with_safetensors = {os.path.dirname(name) for name in self._names if name.endswith(".safetensors")}
        for name in sorted(self._names):
            is_pickle = any(fnmatch.fnmatch(name, pattern) for pattern in _PICKLES)
            is_alone = os.path.dirname(name) not in folders_with_safetensors
            is_loaded = not any(fnmatch.fnmatch(os.path.basename(name), pattern) for pattern in _LEFT_BY_TRAINING)
            if is_pickle and is_alone and is_loaded:
                raise self._problem(f"{name} is a pickle, which can run code; convert it to safetensors")

    def _check_indexes(self) -> None:
        """Raise a `UserError` if an index names files outside the checkpoint."""
        for name in sorted(self._names):
            if re.search(r"\.safetensors\.index(\.[^/]+)?\.json$", name):
                for shard in sorted(set(self._weight_map(name).values())):
                    if os.path.basename(shard) != shard or not shard.endswith(".safetensors"):
                        raise self._problem(f"{name} names {shard!r}; it may name safetensors beside it alone")

    def _weight_map(self, index: str) -> dict[str, str]:
        weight_map = self._json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
            raise self._problem(f"{index} should have a `weight_map` from tensors to files")
        return weight_map

    def _check_no_code(self, model_index: Mapping[str, Any]) -> None:
        """Raise a `UserError` if a pipeline's class or one of its components comes from neither library."""
        if "_class_name" not in model_index:
            raise self._problem("its model_index.json names no pipeline class (`_class_name`)")
        for name, value in model_index.items():
            library = value[0] if isinstance(value, list) and value else None
            is_own = library not in _LIBRARIES or name == "_class_name" or f"{name}/{library}.py" in self._names
            if isinstance(library, str) and is_own:
                raise self._problem(
                    f"{name} in its model_index.json is {value}, code of its own, which is never run; "
                    "only classes of diffusers and transformers are"
                )
        if not isinstance(model_index["_class_name"], str):
            raise self._problem(f"`_class_name` in its model_index.json should be a name: {model_index['_class_name']}")

    def _config(self, name: str) -> dict[str, Any] | None:
        """Return a component's config; None if it has none."""
        file = f"{name}/scheduler_config.json" if name.endswith("scheduler") else f"{name}/config.json"
        return self._json(file) if file in self._names else None

    def _check_tokenizer(self, name: str) -> None:
        if not any(f"{name}/{vocabulary}" in self._names for vocabulary in _VOCABULARIES):
            raise self._lacks(f"{name}/tokenizer.json")
        for file in sorted(self._names):
            if file.startswith(f"{name}/") and file.endswith(".json"):
                self._json(file) if file.endswith("_config.json") else self._check_not_pointer(file)

    def _check_preprocessor(self, name: str) -> None:
        files = [file for file in sorted(self._names) if file.startswith(f"{name}/")]
        if not files:
            raise self._lacks(f"{name}/config.json")
        for file in files:
            self._check_not_pointer(file)

    def _check_not_pointer(self, file: str) -> None:
        data = self._files.read(file)
        if data.startswith(GIT_LFS_POINTER):
            raise self._problem(f"{file} is a pointer of Git LFS and not the file itself; fetch it with: git lfs pull")
        if not data:
            raise self._problem(f"{file} is empty; copy it again")

    def _component(self, name: str, library: str, class_name: str, config: Mapping[str, Any]) -> Component:
        quantization = config.get("quantization_config")
        if quantization is not None:
            self._check_quantization(name, quantization)
        tensors: dict[str, Tensor] = {}
        with as_user_errors(f"{name} cannot be read", ("checkpoint",), self._source):
            for file in self._weight_files(name, library):
                try:
                    tensors |= self._files.header(file)
                except DamagedFile as damage:
                    raise self._problem(f"{file} {damage}") from damage
        return Component(library, class_name, config, tensors, quantization is not None)

    def _check_quantization(self, name: str, quantization: Any) -> None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        package = _PACKAGES_OF_QUANTIZATION.get(str(method))
        if package is None or not _is_installed(package):
            needs = f"the package {package}, which is not installed" if package else "a package that is not known"
            raise self._problem(
                f"{name}/config.json: its weights are quantized with {method}, which needs {needs}; "
                "use weights that are not quantized"
            )

    def _weight_files(self, name: str, library: str) -> list[str]:
        """Return the files from which the libraries load a component.

        Raises:
            UserError: one of them is not there.
        """
        variant = self._variant if self._has_variant(name) else None
        suffix = f".{variant}" if variant else ""
        # a class of a pipeline's own module may derive from either library; its files show which
        own = "transformers" if any(file.startswith(f"{name}/model") for file in self._names) else "diffusers"
        saved_by = library if library in _WEIGHTS else own
        single = f"{name}/{_WEIGHTS[saved_by]}{suffix}.safetensors"
        index = f"{name}/{_WEIGHTS[saved_by]}.safetensors.index{suffix}.json"
        is_single = single in self._names and (saved_by == "transformers" or index not in self._names)
        if is_single:
            return [single]
        if index in self._names:
            return self._shards(name, index)
        others = ", ".join(self._variants(name))
        if others and not suffix:
            raise self._problem(
                f"it has no {single}, but weights of the variant {others}; write that as `variant` beside `checkpoint`"
            )
        raise self._lacks(single)

    def _shards(self, name: str, index: str) -> list[str]:
        shards: dict[str, set[str]] = {}
        for tensor, shard in self._weight_map(index).items():
            shards.setdefault(f"{name}/{shard}", set()).add(tensor)
        for shard, tensors in sorted(shards.items()):
            if shard not in self._names:
                raise self._problem(f"it has no {shard}, and {index} names it")
            try:
                there = set(self._files.header(shard))
            except DamagedFile as damage:
                raise self._problem(f"{shard} {damage}") from damage
            if tensors != there:
                odd = sorted(tensors - there)
                words = f"has no tensor {odd[0]}, and" if odd else f"has a tensor {sorted(there - tensors)[0]} that"
                raise self._problem(f"{shard} {words} {index} {'names it' if odd else 'does not name'}")
        return sorted(shards)

    def _holds_weights(self, name: str) -> bool:
        return any(file.startswith(f"{name}/") and file.endswith(".safetensors") for file in self._names)

    def _has_variant(self, name: str) -> bool:
        return self._variant is not None and self._variant in self._variants(name)

    def _variants(self, name: str) -> list[str]:
        """Return the variants of a component's weights that exist."""
        files = (file.removeprefix(f"{name}/") for file in self._names if file.startswith(f"{name}/"))
        matches = (_VARIANT.fullmatch(file) or _VARIANT_OF_INDEX.fullmatch(file) for file in files)
        return sorted({match["variant"] for match in matches if match})


def _parts(model_index: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """Return the components of a pipeline, with their libraries and classes."""
    lists = {name: value for name, value in model_index.items() if isinstance(value, list) and len(value) == 2}
    return {name: value for name, value in lists.items() if all(isinstance(part, str) for part in value)}


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False
