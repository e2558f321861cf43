"""The cache of a node: one fetch for many tasks, a bounded size, and no trust in what lies on the disk."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from rendermill.actors.media.inputs.options import BadInput
from rendermill.actors.media.inputs.sources.cache import InputCache


def _stored(folder):
    return [path for path in folder.rglob("*") if path.is_file() and "lock" not in str(path.relative_to(folder))]


def test_one_fetch_for_all_who_ask_at_once(tmp_path):
    begun, second_fetch, fetches = threading.Barrier(8), threading.Barrier(2), []

    def fetch():
        fetches.append(1)
        with suppress(threading.BrokenBarrierError):  # there is no second fetch that would meet this one
            second_fetch.wait(0.2)
        return b"content"

    def ask(_):
        cache = InputCache(tmp_path, 10**6, 30.0)  # each task has its own
        begun.wait()
        return cache.get("key", fetch)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {b"content"}
    assert len(fetches) == 1


def test_damaged_file_is_fetched_again(tmp_path):
    cache = InputCache(tmp_path, 10**6, 30.0)
    cache.get("key", lambda: b"content")
    (file,) = _stored(tmp_path)
    for damaged in (file.read_bytes()[:-1], b"", file.read_bytes()[:-1] + b"x"):
        file.write_bytes(damaged)
        assert cache.get("key", lambda: b"content") == b"content"
    assert cache.get("key", pytest.fail) == b"content"


def test_least_recently_used_files_are_removed(tmp_path):
    cache = InputCache(tmp_path, 10_000, 30.0)
    for number in range(30):
        cache.get(f"{number}", lambda: bytes(1000))
        for age, path in enumerate(sorted(_stored(tmp_path), key=lambda path: -path.stat().st_mtime)):
            os.utime(path, (10**9 - age, 10**9 - age))  # in the same order, without waiting for the clock
        assert cache.get("0", pytest.fail) == bytes(1000)
    assert 5_000 < sum(path.stat().st_size for path in _stored(tmp_path)) <= 10_000


def test_disk_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    cache = InputCache(tmp_path / "file" / "folder", 10**6, 30.0)
    assert cache.get("key", lambda: b"content") == b"content"


def test_error_of_a_fetch_is_not_kept(tmp_path):
    cache = InputCache(tmp_path, 10**6, 30.0)

    def fail():
        raise BadInput("no")

    with pytest.raises(BadInput):
        cache.get("key", fail)
    assert cache.get("key", lambda: b"content") == b"content"


def test_file_larger_than_the_cache_is_not_kept(tmp_path):
    cache = InputCache(tmp_path, 10_000, 30.0)
    assert cache.get("key", lambda: bytes(10_000)) == bytes(10_000)
    assert _stored(tmp_path) == []
