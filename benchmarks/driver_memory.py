"""Runs a command and prints how long it took and the peak memory of its own process, without its children's.

`python benchmarks/driver_memory.py -- rendermill generate JOB.yaml …`
"""

import re
import subprocess
import sys
import time
from pathlib import Path


def peak_mebibytes(process: "subprocess.Popen[bytes]") -> float:
    """The kernel's high-water mark of a process's resident memory; 0 once it has ended."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except FileNotFoundError:
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def main(command: list[str]) -> int:
    """Run the command to its end."""
    start, peak = time.monotonic(), 0.0
    process = subprocess.Popen(command)
    while process.poll() is None:
        peak = max(peak, peak_mebibytes(process))
        time.sleep(0.2)
    print(f"driver: {time.monotonic() - start:.0f} s, peak {peak:.0f} MiB, exit status {process.returncode}")
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[sys.argv.index("--") + 1 :]))
