"""Rows are read with their ids and hashes, within bounds of memory, from wherever they lie."""

import contextlib
import datetime
import decimal
import functools
import http.server
import os
import threading
import uuid
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from rendermill.manifests.errors import UserError
from rendermill.manifests.reader.manifest import open_manifest
from rendermill.manifests.reader.read_rows import read_rows
from tests.support.odd_manifests import (
    extension,
    ids_and_hashes,
    parquet,
)


def test_ids_and_request_hashes_of_rows_with_columns_of_any_type_stay_as_they_are(tmp_path: Path) -> None:
    table = {
        "prompt": ["a cat", "a dog"],
        "seed": pa.array([7.0, None]),
        "width": pa.array([64, None], pa.int16()),
        "text": ["x", None],
        "category": pa.array(["u", "v"]).dictionary_encode(),
        "raw": [b"\x01\xff", b""],
        "score": [0.5, float("nan")],
        "flag": [True, None],
        "day": [datetime.date(2024, 1, 2), None],
        "time": [datetime.datetime(2024, 1, 2, 3, 4, 5, 678901), None],
        "ns": pa.array([1704164645678901234, None], pa.timestamp("ns")),
        "zoned": pa.array([1704164645678901, None], pa.timestamp("us", "Europe/Berlin")),
        "price": [decimal.Decimal("1.50"), None],
        "tags": [["a", "b"], []],
        "box": [{"x": 1, "y": None}, None],
        "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
        "key": extension(pa.uuid(), [uuid.UUID(int=5).bytes, None]),
        "took": [datetime.timedelta(seconds=1.5), None],
        "clock": [datetime.time(1, 2, 3), None],
        "float32": pa.array([0.1, None], pa.float32()),
        "empty": pa.nulls(2),
    }
    parquet(tmp_path / "m.parquet", table)
    assert ids_and_hashes(str(tmp_path / "m.parquet")) == [
        ("68ab60c38a01fc39a7d8c7abf37ea64b", "a7a67d29533cf066e44de1e4c294eccf"),
        ("695f656b9dfa960641d202ff4b6b32cf", "1573e595c6f89330c55be1554cb2a949"),
    ]


def test_the_index_that_pandas_stores_is_no_part_of_a_row(tmp_path: Path) -> None:
    rows = pd.DataFrame({"prompt": ["a", "b", "c"]})
    rows.iloc[[0, 2, 1]].to_parquet(tmp_path / "filtered.parquet")
    rows.set_axis([5, 9, 7]).to_parquet(tmp_path / "moved.parquet")
    filtered, moved = (ids_and_hashes(str(tmp_path / name)) for name in ("filtered.parquet", "moved.parquet"))
    assert sorted(filtered) == sorted(moved)


@contextlib.contextmanager
def arrow_memory() -> Iterator[pa.MemoryPool]:
    """Within, all that Arrow holds is of this pool."""
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    POOLS.append(pool)
    pa.set_memory_pool(pool)
    try:
        yield pool
    finally:
        pa.set_memory_pool(before)


def repeated(num_rows: int, num_bytes: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(num_rows, np.int32)), pa.array(["y" * num_bytes]))


POOLS: list[pa.MemoryPool] = []
"""Arrow's buffers may outlive a test, and their pool has to outlive them."""


@pytest.mark.parametrize("names", [["prompt"], ["id", "prompt", "own"], ["prompt", "own"]])
def test_what_repeats_itself_in_a_file_is_not_written_out_in_memory(tmp_path: Path, names: list[str]) -> None:
    num_rows = 2_000
    columns = {
        "id": pa.array([f"{row}" for row in range(num_rows)]),
        "prompt": repeated(num_rows, 1_000_000)
        if names == ["prompt"]
        else pa.array([f"{row}" for row in range(num_rows)]),
        "own": repeated(num_rows, 1_000_000),
    }
    parquet(tmp_path / "m.parquet", {name: columns[name] for name in names}, compression="zstd", store_schema=False)
    (row_group,) = open_manifest(str(tmp_path / "m.parquet")).row_groups
    with arrow_memory() as pool:
        rows = next(read_rows(row_group))
        list(zip(rows.identified(range(len(rows.own))), range(20), strict=False))
    assert pool.max_memory() < 2**27


def test_large_rows_are_not_all_in_memory_at_once(tmp_path: Path) -> None:
    num_rows = 96
    columns = {"prompt": [f"{row}" for row in range(num_rows)], "own": [os.urandom(2**20) for _ in range(num_rows)]}
    parquet(tmp_path / "m.parquet", columns, write_batch_size=1)  # pages are read whole, and end after so many rows
    del columns
    with arrow_memory() as pool:
        (row_group,) = open_manifest(str(tmp_path / "m.parquet")).row_groups
        own = {hash(row["own"]) for rows in read_rows(row_group) for row in rows.identified(range(len(rows.own)))}
    assert len(own) == num_rows
    assert pool.max_memory() < 2**26


NUM_FILES = 3


class Server(http.server.SimpleHTTPRequestHandler):
    """Answers no ranges, counts what it is asked for, and gives no file before it is asked for all."""

    asked: ClassVar[Counter[str]] = Counter()
    all_are_asked_for: ClassVar[threading.Barrier] = threading.Barrier(NUM_FILES, timeout=60)

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        if self.path.endswith(".parquet"):
            self.all_are_asked_for.wait()
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The URL of a `Server` of the test's folder."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_small_files_far_away_are_asked_for_at_once_and_once(tmp_path: Path, served: str) -> None:
    for number in range(NUM_FILES):
        parquet(tmp_path / f"{number}.parquet", {"prompt": [os.urandom(2000).hex() for _ in range(5)]})
    assert len(ids_and_hashes(f"{served}/")) == 15
    assert {path: count for path, count in Server.asked.items() if path.endswith(".parquet")} == {
        f"/{number}.parquet": 1 for number in range(NUM_FILES)
    }


def test_a_large_file_on_a_server_without_ranges_is_refused(tmp_path: Path, served: str) -> None:
    parquet(tmp_path / "large", {"prompt": ["x"], "own": [os.urandom(2**20)]})
    with pytest.raises(UserError, match=r"manifest http:.*large: .* server doesn't appear to support range requests"):
        open_manifest(f"{served}/large")


def test_files_in_an_archive_are_read_by_a_chain_of_urls(tmp_path: Path) -> None:
    parquet(tmp_path / "m.parquet", {"prompt": ["a", "b"]})
    with zipfile.ZipFile(tmp_path / "prompts.zip", "w") as archive:
        archive.write(tmp_path / "m.parquet", "model=sana/m.parquet")
    plain = ids_and_hashes(str(tmp_path / "m.parquet"))
    for url in (
        f"zip://model=sana/*.parquet::{tmp_path}/prompts.zip",
        f"zip://model=sana::file://{tmp_path}/prompts.zip",
    ):
        assert ids_and_hashes(url) == plain
    assert len(ids_and_hashes(f"zip://::{tmp_path}/prompts.zip")) == 2
