"""Finds out why a worker process died, from Ray and from its node, and ends a process that hangs from outside."""

import contextlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from ray.util.state import get_worker

_SECONDS_FOR_A_NODE = 30.0
"""The timeout of a task on the process's node, where Ray may have to start a process first."""
_SECONDS_FOR_RAY = 5
_UNKNOWN_CAUSE = "it ended without a message, as by SIGKILL (which the kernel sends if memory runs out) or an exit"
_Cause = tuple[str, str]


@dataclass(frozen=True)
class WorkerProcess:
    """A process of a Ray worker.

    Attributes:
        log: the path, on its node, of the file that its standard error goes to.
        started_at: seconds since 1970, because the system reuses process ids.
    """

    node_id: str
    worker_id: str
    process_id: int
    started_at: float
    log: str

    @classmethod
    def this(cls) -> "WorkerProcess":
        """Return the calling process."""
        context, log = ray.get_runtime_context(), ""
        with contextlib.suppress(OSError):
            log = os.readlink("/proc/self/fd/2")
        started_at = psutil.Process().create_time()
        return cls(context.get_node_id(), context.get_worker_id(), os.getpid(), started_at, log)


def cause_of_death(process: WorkerProcess) -> _Cause:
    """Return the type of the error that a death is recorded as, and its message."""
    for known in (_known_to_ray, _logged_on_its_node):
        with contextlib.suppress(Exception):  # Ray's dashboard may be off, and the node may be gone by now
            if (cause := known(process)) is not None:
                return cause
    return "WorkerDied", _UNKNOWN_CAUSE


def end_process(process: WorkerProcess) -> bool:
    """Kill a process on its node, even if it is stopped; return whether it existed.

    Raises:
        RayError: the node does not answer.
    """
    return bool(_on_its_node(_kill, process, process.process_id, process.started_at))


def _known_to_ray(process: WorkerProcess) -> _Cause | None:
    if not any(node["NodeID"] == process.node_id and node["Alive"] for node in ray.nodes()):
        return "WorkerDied", "its node died"
    worker = get_worker(process.worker_id, ray.get_runtime_context().gcs_address, timeout=_SECONDS_FOR_RAY)
    if worker is not None and worker.exit_type == "NODE_OUT_OF_MEMORY":
        return "OutOfMemoryError", "Ray's memory monitor ended it, as the memory of its node ran out"
    return None


def _logged_on_its_node(process: WorkerProcess) -> _Cause | None:
    signal = _on_its_node(_signal_in_log, process, process.log)
    return None if signal is None else ("WorkerDied", f"signal {signal}")


def _on_its_node(function: Callable[..., Any], process: WorkerProcess, *arguments: object) -> Any:
    there = NodeAffinitySchedulingStrategy(process.node_id, soft=False)
    remote: Any = ray.remote(function)
    task = remote.options(num_cpus=0, max_retries=0, scheduling_strategy=there)
    return ray.get(task.remote(*arguments), timeout=_SECONDS_FOR_A_NODE)


def _signal_in_log(log: str) -> str | None:
    """Return the last signal that Ray's handler logged, such as SIGSEGV; None if it logged none."""
    found = (
        re.findall(r"\*\*\* (SIG\w+) received", Path(log).read_text(errors="replace")) if os.path.isfile(log) else []
    )
    return found[-1] if found else None


def _kill(process_id: int, started_at: float) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(process_id)
        if abs(process.create_time() - started_at) < 1.0:
            process.kill()
            return True
    return False
