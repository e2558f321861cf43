"""Python imports this where the folder is on PYTHONPATH: a chaos run's processes note what they do, and spring traps.

In the folder that CHAOS_NOTES names, `rendered` gets a line for every rendered item; `rolling-up` exists while a driver
rolls up, and `roll-up-seconds` gets a line when it is done. A driver springs the trap in `trap.json`
(`benchmarks.chaos.traps`) at one of its changes to the output; one of its tasks springs the one in `poison.json`.

CHAOS_LEASE_SCALE makes a lease's times shorter, CHAOS_CLOCK_OFFSET sets the clock of leases wrong by so many seconds.
"""

import functools
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import wrapt

NOTES = Path(os.environ["CHAOS_NOTES"])
IS_DRIVER = "CHAOS_DRIVER" in os.environ
_rolling_up = threading.Event()


@wrapt.when_imported("rendermill.models.families.sana.text_to_image")
def _note_drawn_items(module: ModuleType) -> None:
    @wrapt.patch_function_wrapper(module, "Sana.render")
    def render(wrapped: Callable[..., Any], instance: Any, arguments: Any, keywords: Any) -> Any:
        rendered = wrapped(*arguments, **keywords)
        with (NOTES / "rendered").open("a") as file:
            file.write("".join(f"{request.request_hash}\n" for request in arguments[0]))
        return rendered


@wrapt.when_imported("rendermill.manifests.output.ledger.ledger")
def _note_roll_ups(module: ModuleType) -> None:
    @wrapt.patch_function_wrapper(module, "Ledger.roll_up")
    def roll_up(wrapped: Callable[..., None], instance: Any, arguments: Any, keywords: Any) -> None:
        if not instance.num_pending:
            wrapped(*arguments, **keywords)
            return
        (NOTES / "rolling-up").touch()
        _rolling_up.set()
        started = time.monotonic()
        try:
            wrapped(*arguments, **keywords)
        finally:
            _rolling_up.clear()
            (NOTES / "rolling-up").unlink(missing_ok=True)
        with (NOTES / "roll-up-seconds").open("a") as file:
            file.write(f"{time.monotonic() - started}\n")


@wrapt.when_imported("rendermill.manifests.output.holder")
def _change_times(module: ModuleType) -> None:
    # the lease imports it from there, after this
    module.SECONDS_BETWEEN_HEARTBEATS *= float(os.environ.get("CHAOS_LEASE_SCALE", "1"))
    offset = float(os.environ.get("CHAOS_CLOCK_OFFSET", "0"))
    if offset:
        true_time = time.time
        time.time = lambda: true_time() + offset


@wrapt.when_imported("rendermill.actors.media.encoders")
def _poison_encoding(module: ModuleType) -> None:
    @wrapt.patch_function_wrapper(module, "encode")
    def encode(wrapped: Callable[..., Any], instance: Any, arguments: Any, keywords: Any) -> Any:
        _take_poison(arguments[3]["id"])
        return wrapped(*arguments, **keywords)


def _take_poison(item: str) -> None:
    """Kill this process with one item in hand, as often as the poison says."""
    file = NOTES / "poison.json"
    if not file.exists():
        return
    poison = json.loads(file.read_text())
    if poison["item"] in (None, item) and poison["num_deaths"]:
        poison |= {"item": item, "num_deaths": poison["num_deaths"] - 1}
        file.with_suffix(".new").write_text(json.dumps(poison))
        os.replace(file.with_suffix(".new"), file)
        os.kill(os.getpid(), signal.SIGKILL)


class _Trap:
    """At which of this driver's changes to the output what happens to it; see `benchmarks.chaos.traps.Trap`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_seen = 0

    def around(self, change: Callable[..., Any], what: str) -> Any:
        """Make a change, and spring the trap before or after it if it is the one."""
        trap = self._is_sprung_by(what)
        if trap is not None and trap["is_before"]:
            self._spring(trap)
        result = change()
        if trap is not None and not trap["is_before"]:
            self._spring(trap)
        return result

    def _is_sprung_by(self, what: str) -> dict[str, Any] | None:
        file = NOTES / "trap.json"
        with self._lock:
            if not file.exists():
                return None
            trap = dict(json.loads(file.read_text()))
            if trap["in_roll_up"] and not _rolling_up.is_set():
                return None
            self._num_seen += 1
            if self._num_seen <= trap["num_changes_before"]:
                return None
            file.unlink()
            (NOTES / "sprung.new").write_text(f"{what}{' while it rolled up' if _rolling_up.is_set() else ''}")
            return trap

    def _spring(self, trap: dict[str, Any]) -> None:
        if trap["action"] == "cut":
            (NOTES / "cut").touch()
        (NOTES / "sprung.new").rename(NOTES / "sprung")
        if trap["action"] != "cut":
            os.kill(os.getpid(), trap["action"])


_trap = _Trap()


def _catch(name: str) -> None:
    change = getattr(os, name)

    @functools.wraps(change)
    def caught(*arguments: Any, **keywords: Any) -> Any:
        path = str(arguments[1] if name in ("replace", "rename", "link") else arguments[0])
        if not path.startswith(os.environ["CHAOS_DRIVER"]):
            return change(*arguments, **keywords)
        return _trap.around(lambda: change(*arguments, **keywords), f"{name} {path}")

    setattr(os, name, caught)


if IS_DRIVER:
    for _name in ("replace", "rename", "link", "remove", "unlink"):
        _catch(_name)


@wrapt.when_imported("s3fs.core")
def _catch_requests(module: ModuleType) -> None:
    if not IS_DRIVER:
        return

    @wrapt.patch_function_wrapper(module, "S3FileSystem._call_s3")
    async def call(wrapped: Callable[..., Any], instance: Any, arguments: Any, keywords: Any) -> Any:
        method, key = arguments[0], keywords.get("Key", "")
        if method not in ("put_object", "delete_object", "delete_objects"):
            return await wrapped(*arguments, **keywords)
        trap = _trap._is_sprung_by(f"{method} {key}")
        if trap is not None and trap["is_before"]:
            _trap._spring(trap)
        result = await wrapped(*arguments, **keywords)
        if trap is not None and not trap["is_before"]:
            _trap._spring(trap)
        return result
