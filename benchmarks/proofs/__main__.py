"""The worth of proofs of batch sizes on this machine: `python -m benchmarks.proofs --num-processes 8`.

For every stage of every checkpoint of the repository, in bfloat16 and float32: renders real prompts, calls the stage
with the same items again and again, each time in another order, so that they meet in batches of all proven sizes, and
counts the calls that give other bits than calls at the reference size. Then splits the sums of one operation after the
other (`sabotage.py`), and counts the trials that find it out.
"""

import argparse
import math
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from benchmarks.proofs.cases import CASES, DTYPES, SIZES
from benchmarks.proofs.share import Share
from benchmarks.proofs.stage import Stage


def shares(given: argparse.Namespace) -> list[list[Share]]:
    """Return the work on each checkpoint and dtype, in a share for each process."""
    num_shares = max(given.num_processes, len(SIZES))
    return [
        [
            Share(
                checkpoint,
                dtype,
                index,
                math.ceil(given.num_calls / num_shares),
                range(index, given.num_sabotages, num_shares),
                60 * given.max_minutes,
            )
            for index in range(num_shares)
        ]
        for checkpoint in given.checkpoints
        for dtype in given.dtypes
    ]


def main() -> int:
    """Print a line for every stage; the exit status says whether all calls agreed and all split sums were found."""
    parser = argparse.ArgumentParser(description="Counts what proofs of batch sizes are worth.")
    parser.add_argument("--num-calls", type=int, default=2000, help="at proven sizes, of each stage and dtype")
    parser.add_argument("--num-sabotages", type=int, default=100, help="of each stage and dtype")
    parser.add_argument("--max-minutes", type=float, default=10, help="of a process, for each checkpoint and dtype")
    parser.add_argument("--num-processes", type=int, default=1)
    parser.add_argument("--checkpoints", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--dtypes", nargs="*", choices=DTYPES, default=list(DTYPES))
    given = parser.parse_args()
    num_bad = 0
    with ProcessPoolExecutor(given.num_processes, get_context("spawn")) as pool:
        for own, results in [(some, [pool.submit(share.run) for share in some]) for some in shares(given)]:
            print(f"{own[0].checkpoint} in {own[0].dtype}", flush=True)
            seen: dict[str, Stage] = defaultdict(Stage)
            for result in results:
                for name, stage in result.result().items():
                    seen[name] += stage
            for name, stage in seen.items():
                print(f"  {name} {stage}", *sorted(stage.proven), sep="\n    ", flush=True)
                num_bad += stage.num_different + stage.sabotaged[False]
    return int(num_bad > 0)


if __name__ == "__main__":
    sys.exit(main())
