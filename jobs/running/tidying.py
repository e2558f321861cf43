"""Removes media that no record names, once readers have had time to follow; in shards, too."""

import ray
from ray.exceptions import RayTaskError

from rendermill.manifests.output.ledger.ledger import Ledger
from rendermill.manifests.output.ledger.stale_shards import ShardCleanup
from rendermill.manifests.output.shards import keep_members
from rendermill.manifests.storage.folder import Folder


def tidy(ledger: Ledger) -> dict[str, str]:
    """Remove what dead tasks stored, what was stored twice, and what newer media replaced.

    Call it under the lease, after a roll-up, while nothing is being rendered. A shard that holds more than records name
    is written anew under another name; a task does that, as shards may be large. Then its records name the new shard.

    Returns:
        Why shards cannot be read, by name: they stay as they are, and the next call tries again.
    """
    ledger.remove_stale_media()
    cleanup = ShardCleanup(ledger)
    stale = cleanup.find()
    ledger.folder.delete(stale.nameless)
    task, output = ray.remote(num_cpus=1)(keep_members), Folder(ledger.folder.url, ledger.folder.patience_seconds)
    try:
        kept = ray.get([task.remote(output, shard, members) for shard, members in stale.doubtful.items()])
    except RayTaskError as error:
        raise error.cause from error  # what a store raised, so that callers know it
    cleanup.rename({old: new.name for old, new in zip(stale.doubtful, kept, strict=True) if new.name != old})
    damaged = {shard: new.problem for shard, new in zip(stale.doubtful, kept, strict=True) if new.problem}
    cleanup.forget(stale, but=damaged)
    return damaged
