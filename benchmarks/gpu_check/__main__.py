"""Runs rendermill on one GPU, in the shapes of Sana 1.6B and Wan 2.2 A14B: `python -m benchmarks.gpu_check`.

Prints items a second beside the stock pipeline in a loop, whether pixels stayed the same across batch sizes and
orders, and what happens where memory is short. Random weights do for all of it: same shapes, same kernels. Takes about
half an hour and 40 GB of disk.
"""

import argparse
import tempfile
from pathlib import Path

import torch

from benchmarks.full_size import build_sana_1600m, build_wan_a14b
from benchmarks.gpu_check.sana import SANA_CHECKS
from benchmarks.gpu_check.wan import WAN_CHECKS


def main() -> None:
    """Run the checks that were asked for, else all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    checks = [*SANA_CHECKS, *WAN_CHECKS]
    parser.add_argument("checks", nargs="*", choices=checks, default=checks)
    parser.add_argument("--num-images", type=int, default=128)
    given = parser.parse_args()
    print(f"on {torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
    rows = [{"id": str(index), "prompt": f"prompt {index}"} for index in range(given.num_images)]
    with tempfile.TemporaryDirectory() as name:
        sana, wan = Path(name) / "sana", Path(name) / "wan"
        if SANA_CHECKS.keys() & set(given.checks):
            build_sana_1600m(sana)
        if WAN_CHECKS.keys() & set(given.checks):
            build_wan_a14b(wan)
        torch.cuda.empty_cache()
        for check in given.checks:
            if check in SANA_CHECKS:
                SANA_CHECKS[check](sana, rows)
            else:
                WAN_CHECKS[check](wan)


if __name__ == "__main__":
    main()
