"""PYTHONPATH in a process that was forked, where Python would have read it at its start."""

import importlib
import os
import sys
from importlib.util import find_spec


def take_python_path() -> None:
    """Search the folders of PYTHONPATH and import their `sitecustomize.py`, as Python does when it starts.

    What was imported before the fork stays as it is.
    """
    folders = os.environ.get("PYTHONPATH")
    if not folders:
        return
    sys.path[1:1] = folders.split(os.pathsep)
    sys.modules.pop("sitecustomize", None)  # that of the process from which this one was forked
    importlib.invalidate_caches()
    if find_spec("sitecustomize"):
        importlib.import_module("sitecustomize")
