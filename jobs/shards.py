"""Leaves in an output's shards what records name, and nothing else."""

import ray
from ray.exceptions import RayTaskError

from manifests.ledger import Ledger
from manifests.shards import keep_members


def tidy(ledger: Ledger) -> dict[str, str]:
    """Remove what dead tasks stored, what was stored twice, and what gave way to something newer.

    To be called after a roll-up, by the lease's holder. A shard is written anew by a task, as it may be large.

    Returns:
        Why shards cannot be read, by name: they stay as they are, and the next call tries again.
    """
    stale = ledger.stale_shards()
    ledger.folder.delete(stale.nameless)
    task = ray.remote(num_cpus=1)(keep_members)
    try:
        problems = ray.get([task.remote(ledger.folder, shard, members) for shard, members in stale.doubtful.items()])
    except RayTaskError as error:
        raise error.cause from error  # what a store raised, so that callers know it
    damaged = {shard: problem for shard, problem in zip(stale.doubtful, problems, strict=True) if problem}
    if not damaged:
        ledger.forget_stale_media()
    return damaged
