"""What pixels depend on besides the item: the device, versions, and the settings that make a device deterministic."""

import json
import os
import platform
import re

import torch

from rendermill.actors.versions import versions


def make_deterministic(compiled: bool) -> str:
    """Make this process compute the same bits for the same work; return the device, `cuda` or `cpu`.

    On a CPU each actor computes with one thread, because the way in which threads share a sum changes its last bit, and
    a pool's `num_cpus` would change pixels. More actors use more cores.

    Args:
        compiled: whether this process renders with compiled code.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # lets one batch size reuse the memory of another
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    torch.set_deterministic_debug_mode("warn")
    if compiled:
        from torch._inductor import config  # imported here, because it takes a second

        config.deterministic = True
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time, and helps only incorrect code
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if torch.cuda.is_available():
        return "cuda"
    torch.set_num_threads(1)
    return "cpu"


def device_name(device: str) -> str:
    """Return the model of the device, as records give it."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return _cpu_model() or platform.machine()


def _cpu_model() -> str | None:
    try:
        with open("/proc/cpuinfo") as file:
            lines = (line.partition(":") for line in file)
            return next((value.strip() for key, _, value in lines if key.strip() == "model name"), None)
    except OSError:
        return None


def _driver_version() -> str | None:
    try:
        with open("/proc/driver/nvidia/version") as file:
            found = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", file.readline())
            return found and found.group(1)
    except OSError:
        return None


def environment(device: str, compiled: bool) -> str:
    """Return the environment of a record as JSON: only with equal devices and environments are pixels comparable."""
    content = {**versions(), "compiled": compiled}
    if device == "cuda":
        from diffusers.utils.constants import DIFFUSERS_ATTN_BACKEND  # imported here, because it takes a second

        content |= {
            "attention": DIFFUSERS_ATTN_BACKEND,
            "cublas_workspace": os.environ["CUBLAS_WORKSPACE_CONFIG"],
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": _driver_version(),
        }
    else:
        content |= {"cpu_capability": torch.backends.cpu.get_cpu_capability()}
    return json.dumps(content, sort_keys=True)
