"""Imported at start-up by every process of a job whose PYTHONPATH has a copy of this: writes down the way of one row.

Beside the copy, each process writes a file of lines: a time, and a file of rendermill to which the row comes. It comes
to a file if a function there is called with something that holds the row, or if one returns or yields such a thing and
the row has not been in that file before, as when it is read.
"""

import os
import sys
import threading
import time
from dataclasses import fields, is_dataclass
from pathlib import Path

import wrapt

MARK = "the-row"
"""The id of the row; its prompt has it, too, and so has the name of its media file."""
MAX_DEPTH = 4
HOUSE = f"{os.sep}rendermill{os.sep}"

_CO_GENERATOR = 0x20

_last = threading.local()
_seen = set()
_file_of_code = {}


def _holds(value, depth=0):
    """Whether a value is, or contains, something of the row; objects that are not plain data are not looked into."""
    if isinstance(value, str):
        return MARK in value
    if depth == MAX_DEPTH:
        return False
    if isinstance(value, dict):
        return any(_holds(part, depth + 1) for part in [*value.keys(), *value.values()])
    if isinstance(value, list | tuple):
        return any(_holds(part, depth + 1) for part in value[:50])
    if type(value).__module__ == "pyarrow.lib" and type(value).__name__ in ("Table", "RecordBatch"):
        return "prompt" in value.schema.names and _holds(value.column("prompt").to_pylist())
    if is_dataclass(value) and not isinstance(value, type):
        return any(_holds(getattr(value, field.name, None), depth + 1) for field in fields(value))
    return False


def _watch(frame, event, argument):
    code = frame.f_code
    if code not in _file_of_code:
        _file_of_code[code] = code.co_filename.rpartition(HOUSE)[2] if HOUSE in code.co_filename else None
    file = _file_of_code[code]
    if file is None or event not in ("call", "return") or getattr(_last, "file", None) == file:
        return
    if event == "call" and code.co_flags & _CO_GENERATOR and frame.f_lasti >= 0:
        return  # a generator goes on, and has its arguments from before
    if event == "return" and file in _seen:
        return  # to the caller, which gave it the row
    if event == "call":
        names = [name for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] if name != "self"]
        values = [frame.f_locals.get(name) for name in names]
    else:
        values = [argument]
    if any(map(_holds, values)):
        _last.file = file
        _seen.add(file)
        with (Path(__file__).parent / f"{os.getpid()}.way").open("a") as way:
            way.write(f"{time.time_ns()} {file}\n")


@wrapt.when_imported("rendermill.manifests.rows")
def _begin(_module):
    threading.setprofile(_watch)
    sys.setprofile(_watch)


@wrapt.when_imported("rendermill.actors.renderer")
def _begin_in_threads_of_ray(module):
    @wrapt.patch_function_wrapper(module, "Renderer.__call__")
    def _call(wrapped, instance, arguments, keywords):
        sys.setprofile(_watch)
        return wrapped(*arguments, **keywords)
