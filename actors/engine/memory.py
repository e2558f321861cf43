"""The device's memory: what is there, and what to say where it does not suffice."""

import torch

_GIB = 2**30


def available_bytes() -> int | None:
    """What this process has of the GPU's memory and could get; other processes' use is counted. None without a GPU."""
    if not torch.cuda.is_available():
        return None
    free, _ = torch.cuda.mem_get_info()
    return free + torch.cuda.memory_reserved()


def begin_peak() -> None:
    """From here on, count the peak of what this process allocates."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_bytes() -> int | None:
    """The most that this process had allocated since `begin_peak`; None without a GPU."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def allocated_bytes() -> int:
    """What this process has allocated now; 0 without a GPU."""
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else 0


class DoesNotFit(Exception):
    """The weights, or the reference batch, need more memory than there is."""


def explain_reference(reference_batch: int, needed: int, available: int, weights: int, largest_fitting: int) -> str:
    """Why strict mode cannot draw here, and which settings could; all sizes but the batches' in bytes."""
    others = [f"reference_batch: {largest_fitting}"] if largest_fitting else []
    others += ["vae_tiling: true", "reproducibility: fast"]
    return (
        f"the reference batch of {reference_batch} needs about {needed / _GIB:.1f} GiB of GPU memory, "
        f"{weights / _GIB:.1f} of it for weights, and {available / _GIB:.1f} are available; "
        f"offload: model may fit and keeps the pixels; {' or '.join(others)} may fit and changes them"
    )


def explain_weights() -> str:
    """Why a model cannot be loaded here, and which setting could help."""
    return (
        f"the model's weights do not fit into the {(available_bytes() or 0) / _GIB:.1f} GiB of GPU memory that are "
        "available; offload: group keeps them in CPU memory"
    )


def figures() -> str:
    """The device's memory in words, for the failure of an item that found none."""
    if not torch.cuda.is_available():
        return ""
    free, total = torch.cuda.mem_get_info()
    return (
        f"of {total / _GIB:.1f} GiB this process holds {torch.cuda.memory_reserved() / _GIB:.1f}, "
        f"{torch.cuda.memory_allocated() / _GIB:.1f} of them in use, and {free / _GIB:.1f} are free"
    )
