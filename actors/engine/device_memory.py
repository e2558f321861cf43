"""The memory of the device that this process computes on."""

import torch

GIB = 2**30


class DeviceMemory:
    """The memory of the GPU; without a GPU, memory that is not limited. Tests pass another one to the engine."""

    def available_bytes(self) -> int | None:
        """Return what this process has of the memory and could get, besides other processes; None without a GPU."""
        if not torch.cuda.is_available():
            return None
        free, _ = torch.cuda.mem_get_info()
        return free + torch.cuda.memory_reserved()

    def allocated_bytes(self) -> int:
        """Return what this process has allocated now; 0 without a GPU."""
        return torch.cuda.memory_allocated() if torch.cuda.is_available() else 0

    def begin_peak(self) -> None:
        """Start to measure the peak of what this process allocates."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def peak_bytes(self) -> int | None:
        """Return the largest amount allocated since `begin_peak`; None without a GPU."""
        return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None

    def release(self) -> None:
        """Return memory to the device that this process reserved and does not use."""
        torch.cuda.empty_cache()

    def describe(self) -> str:
        """Return the state of the memory as text, for the failure of an item; empty without a GPU."""
        if not torch.cuda.is_available():
            return ""
        free, total = torch.cuda.mem_get_info()
        return (
            f"of {total / GIB:.1f} GiB this process holds {torch.cuda.memory_reserved() / GIB:.1f}, "
            f"{torch.cuda.memory_allocated() / GIB:.1f} of them in use, and {free / GIB:.1f} are free"
        )
