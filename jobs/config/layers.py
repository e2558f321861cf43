"""The places where the settings of a job stand: YAML files and those that they extend, variables, the command line."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rendermill.jobs.config.dates import DATE_VARIABLE
from rendermill.jobs.config.interpolations import bad_interpolation
from rendermill.jobs.config.mistakes import Mistake, yaml_problem
from rendermill.manifests.errors import Keys, UserError, one_line

PRESET_VARIABLE = "RENDERMILL_ENVIRONMENT"
_PREFIX = "RENDERMILL_"
_MAX_NUM_NODES = 1_000_000
"""More than any job needs, and less than a small file can make of aliases of aliases."""
_NOT_SETTINGS = ("extends", "environments")


@dataclass(frozen=True)
class Layer:
    """The settings that stand in one place. A later layer wins over an earlier one.

    Attributes:
        content: The settings, before interpolations are resolved.
        places: By keys, where each setting and each section stands: a line of a file, a variable, the command line.
    """

    content: DictConfig
    places: Mapping[Keys, str]


@dataclass(frozen=True)
class File:
    """The content of one job file, without that of the files that it extends.

    Attributes:
        presets: The settings of its `environments`, by name.
    """

    settings: Layer
    presets: Mapping[str, Layer]


def read_files(path: Path, extending: tuple[Path, ...] = ()) -> dict[Path, File]:
    """Read a job file and all that it extends, each once, by their real paths; the job file comes last.

    Args:
        extending: The chain of files that extend this one.

    Raises:
        UserError: One of the files does not exist, is not YAML, or extends itself.
    """
    content, lines = _load(path)

    def place(keys: Keys, within: Keys = ()) -> str:
        keys = within + keys
        known = (keys[:num_keys] for num_keys in range(len(keys), 0, -1))
        return next((f"{path}:{lines[some]}" for some in known if some in lines), str(path))

    files: dict[Path, File] = {}
    try:
        for name in _extended(content):
            files |= read_files(_existing(path, name, extending), (*extending, path))
        presets = {
            name: _layer(settings, partial(place, within=("environments", name)))
            for name, settings in _presets(content).items()
        }
    except (Mistake, OmegaConfBaseException) as error:
        mistake = error if isinstance(error, Mistake) else bad_interpolation(error)
        raise UserError(mistake.problem, mistake.keys, place=place(mistake.keys)) from error
    own = OmegaConf.masked_copy(content, [str(key) for key in content if key not in _NOT_SETTINGS])
    return files | {path.resolve(): File(_layer(own, place), presets)}


def variables() -> list[Layer]:
    """Return what `RENDERMILL_…` variables set, except the two that say how to read a job."""
    return [
        override(name, f"{name.removeprefix(_PREFIX).lower().replace('__', '.')}={value}")
        for name, value in sorted(os.environ.items())
        if name.startswith(_PREFIX) and name not in (PRESET_VARIABLE, DATE_VARIABLE)
    ]


def override(place: str, text: str) -> Layer:
    """Return what `key=value` sets. Keys have dots: `models.sana.batch=4`.

    Raises:
        UserError: The text has another form.
    """
    key, _, _ = text.partition("=")
    if not re.fullmatch(r"[^=.\s\[\]]+([.\[][^=.\s]+)*=.*", text, re.DOTALL):
        problem = f"{text!r}: an override is written key=value, for example models.sana.batch=4"
        raise UserError(problem, place=place)
    try:
        content = OmegaConf.from_dotlist([text])
    except yaml.YAMLError as error:
        raise UserError(f"{yaml_problem(error)}; or put the value in quotes", (key,), place=place) from error
    except OmegaConfBaseException as error:
        mistake = bad_interpolation(error)
        raise UserError(mistake.problem, mistake.keys, place=place) from error
    return _layer(content, lambda _: place)


def given(place: str, content: Mapping[str, Any]) -> Layer:
    """Return settings that Python code gives in place of a file.

    Raises:
        UserError: A value is of a type that a job file cannot hold.
    """
    try:
        return _layer(OmegaConf.create(dict(content)), lambda _: place)
    except OmegaConfBaseException as error:
        mistake = bad_interpolation(error)
        raise UserError(mistake.problem, mistake.keys, place=place) from error


def _layer(content: DictConfig, place: Callable[[Keys], str]) -> Layer:
    return Layer(content, {keys: place(keys) for keys in _paths(OmegaConf.to_container(content))})


def _load(path: Path) -> tuple[DictConfig, dict[Keys, int]]:
    """The content of a file, and the lines of its keys."""
    try:
        text = path.read_text("utf-8")
        content = OmegaConf.load(StringIO(text), max_yaml_expanded_nodes=_MAX_NUM_NODES)
    except FileNotFoundError as error:
        raise UserError("no such job file", place=str(path)) from error
    except yaml.MarkedYAMLError as error:
        if "node expansion" in str(error):
            problem = f"it has more than {_MAX_NUM_NODES} keys and values, its aliases written out; make it smaller"
            raise UserError(problem, place=str(path)) from error
        line = min(error.problem_mark.line + 1 if error.problem_mark else 1, len(text.splitlines()))
        raise UserError(yaml_problem(error), place=f"{path}:{line}") from error
    except OmegaConfBaseException as error:
        mistake = bad_interpolation(error)
        line = _lines(text).get(mistake.keys, 1)
        raise UserError(mistake.problem, mistake.keys, place=f"{path}:{line}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot be read as YAML: {one_line(error)}", place=str(path)) from error
    if not isinstance(content, DictConfig):
        problem = "a job file holds keys and values, such as `manifest: prompts.parquet`"
        raise UserError(problem, place=str(path))
    return content, _lines(text)


def _lines(text: str) -> dict[Keys, int]:
    """The lines of the keys of a YAML text."""
    loader, lines = yaml.SafeLoader(text), dict[Keys, int]()

    def note(node: yaml.Node | None, keys: Keys) -> None:
        if isinstance(node, yaml.MappingNode):
            loader.flatten_mapping(node)  # of `<<`
            for key, value in node.value:
                inner = (*keys, str(key.value))
                lines[inner] = key.start_mark.line + 1
                note(value, inner)

    note(loader.get_single_node(), ())
    return lines


def _extended(content: DictConfig) -> list[str]:
    extended = OmegaConf.select(content, "extends")
    names = list(extended) if isinstance(extended, ListConfig) else [] if extended is None else [extended]
    if not all(isinstance(name, str) for name in names):
        raise Mistake(("extends",), "should be a file or a list of files")
    return names


def _existing(path: Path, name: str, extending: tuple[Path, ...]) -> Path:
    """The path of a file that another file extends."""
    extended, chain = Path(os.path.normpath(path.parent / name)), (*extending, path)
    if extended.resolve() in [earlier.resolve() for earlier in chain]:
        way = " → ".join(map(str, (*chain, extended)))
        raise Mistake(("extends",), f"{name} extends itself, by way of {way}; remove one of them")
    if not extended.is_file():
        raise Mistake(("extends",), f"no such file {extended}; a relative path begins at the folder of {path}")
    return extended


def _presets(content: DictConfig) -> dict[str, DictConfig]:
    presets = OmegaConf.select(content, "environments")
    if not isinstance(presets, DictConfig | None):
        raise Mistake(("environments",), "should be settings by a name, such as `dev: {limit: 8}`")
    settings = {str(name): OmegaConf.create() if own is None else own for name, own in (presets or {}).items()}
    for name, own in settings.items():
        if not isinstance(own, DictConfig):
            raise Mistake(("environments", name), "should be keys and values, such as `limit: 8`")
    return settings


def _paths(content: Any, keys: Keys = ()) -> Iterator[Keys]:
    """The keys of all values and sections."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield (*keys, str(key))
            yield from _paths(value, (*keys, str(key)))
