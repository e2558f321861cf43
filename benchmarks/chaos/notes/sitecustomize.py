"""Python imports this where the folder is on PYTHONPATH: the processes of a chaos run then note what they do.

In the folder that CHAOS_NOTES names, `drawn` gets a line for every item drawn; `rolling-up` is there while a driver
rolls up, and `roll-up-seconds` gets a line when it is done.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import wrapt

NOTES = Path(os.environ["CHAOS_NOTES"])


@wrapt.when_imported("models.sana")
def _note_drawn_items(module: ModuleType) -> None:
    @wrapt.patch_function_wrapper(module, "Sana.render")
    def render(wrapped: Callable[..., Any], instance: Any, arguments: Any, keywords: Any) -> Any:
        rendered = wrapped(*arguments, **keywords)
        with (NOTES / "drawn").open("a") as file:
            file.write("".join(f"{request.request_hash}\n" for request in arguments[0]))
        return rendered


@wrapt.when_imported("manifests.ledger")
def _note_roll_ups(module: ModuleType) -> None:
    @wrapt.patch_function_wrapper(module, "Ledger.roll_up")
    def roll_up(wrapped: Callable[..., None], instance: Any, arguments: Any, keywords: Any) -> None:
        if not instance.num_pending:
            wrapped(*arguments, **keywords)
            return
        (NOTES / "rolling-up").touch()
        started = time.monotonic()
        wrapped(*arguments, **keywords)
        (NOTES / "rolling-up").unlink()
        with (NOTES / "roll-up-seconds").open("a") as file:
            file.write(f"{time.monotonic() - started}\n")
