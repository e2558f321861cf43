"""Decide the state of every scanned sample: finished, failed, changed, or to be rendered."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rendermill.jobs.planning.scan.manifest import ScannedManifest
from rendermill.manifests.arrow.hash_set import HashSet, as_numpy


@dataclass(frozen=True)
class StoredHashes:
    """The items and requests that an output already holds, as 16-byte binary values.

    Attributes:
        keys: of the items that have a record (`manifests.identity.item_key`), each once.
        finished: request hashes of the records that count.
        failed: request hashes of the failures.
    """

    keys: pa.ChunkedArray
    finished: pa.ChunkedArray
    failed: pa.ChunkedArray


@dataclass(frozen=True)
class SampleStates:
    """The state of every sample; boolean arrays of shape (samples,).

    Attributes:
        is_to_do: to be rendered.
        is_changed: to be rendered, although the item has a record: one of another request.
        is_finished: has a record already.
        is_failed: failed in an earlier run, and is left as it is.
        num_not_in_manifest: the number of items with a record that no valid row asks for any more; 0 if a limit ended
            the scan, because later rows may ask for them.
    """

    is_to_do: np.ndarray
    is_changed: np.ndarray
    is_finished: np.ndarray
    is_failed: np.ndarray
    num_not_in_manifest: int


def find_states(
    scanned: ScannedManifest, stored: StoredHashes, limit: int | None, retry_failures: bool
) -> SampleStates:
    """Compare samples with what the output holds.

    Args:
        limit: the number of valid samples that count; later ones have no state.
        retry_failures: render again what failed before.
    """
    hashes, is_valid = as_numpy(scanned.samples["request_hash"]), scanned.duplicates.is_valid
    is_finished = is_valid & HashSet(as_numpy(stored.finished)).contains(hashes)
    has_failed = is_valid & ~is_finished & HashSet(as_numpy(stored.failed)).contains(hashes)
    has_record = HashSet(as_numpy(stored.keys)).contains(as_numpy(scanned.samples["key"]))
    is_changed = is_valid & ~is_finished & has_record
    num_in_manifest = int((is_finished | is_changed).sum())
    # The limit counts valid samples from the manifest's start, whatever their state, so that it means the same in
    # every run.
    is_requested = is_valid & (np.cumsum(is_valid) <= (len(is_valid) if limit is None else limit))
    is_to_do = is_requested & ~is_finished & (retry_failures | ~has_failed)
    return SampleStates(
        is_to_do=is_to_do,
        is_changed=is_to_do & is_changed,
        is_finished=is_requested & is_finished,
        is_failed=is_requested & has_failed & ~is_to_do,
        num_not_in_manifest=len(stored.keys) - num_in_manifest if scanned.is_complete else 0,
    )
