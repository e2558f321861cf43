"""Manifest, checkpoint and output on a real S3 server (Ceph)."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import s3fs

from benchmarks.chaos.s3_server import s3_server
from benchmarks.local_cluster import Cluster
from rendermill.manifests.storage.folder import Folder
from tests.support.commands import Rendermill
from tests.support.forked_workers import forking_cluster

pytestmark = pytest.mark.s3


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment with which S3 clients reach the server."""
    try:
        with s3_server(tmp_path_factory.mktemp("s3")) as environment:
            yield environment
    except RuntimeError as error:
        if shutil.which("radosgw") is None:
            pytest.skip(f"the S3 server cannot be installed here: {error}")
        raise


def test_of_many_who_create_a_file_on_s3_one_succeeds(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    folder = Folder("s3://leases/output")
    s3fs.S3FileSystem().mkdir("leases")
    with ThreadPoolExecutor(8) as threads:
        created = list(threads.map(lambda number: folder.create("lease/1.json", str(number).encode()), range(8)))
    assert created.count(True) == 1
    assert folder.read("lease/1.json") == str(created.index(True)).encode()


@pytest.fixture
def on_s3(tmp_path: Path, s3: dict[str, str]) -> Iterator[Cluster]:
    """A cluster that has the server's keys, and fetches checkpoints anew."""
    with forking_cluster(**s3, XDG_CACHE_HOME=str(tmp_path / "cache")) as head:
        yield head


def test_a_job_that_lives_on_s3(tmp_path: Path, checkpoints: Path, s3: dict[str, str], on_s3: Cluster) -> None:
    filesystem = s3fs.S3FileSystem(
        endpoint_url=s3["AWS_ENDPOINT_URL"], key=s3["AWS_ACCESS_KEY_ID"], secret=s3["AWS_SECRET_ACCESS_KEY"]
    )
    filesystem.mkdir("bucket")
    filesystem.put(str(checkpoints / "sana-shapes"), "bucket/checkpoints/sana", recursive=True)
    rendermill = Rendermill(tmp_path, checkpoints, on_s3.environment)
    rendermill.model("sana", "sana-shapes", format="jpeg")
    rendermill.models["sana"]["checkpoint"] = "s3://bucket/checkpoints/sana"

    def put_manifest(steps: int) -> None:
        rows = [{"id": f"a/{index}", "prompt": f"prompt {index}"} for index in range(4)]
        rows[0] |= {"num_inference_steps": steps}
        filesystem.put(str(rendermill.manifest(rows)), "bucket/prompts/part.parquet")

    def generate() -> str:
        finished = rendermill.generate(
            manifest="s3://bucket/prompts/*.parquet", output="s3://bucket/renders", deletion_delay="0.001s"
        )
        assert finished.status == 0, finished
        return finished.out

    def check_records() -> None:
        records = pq.read_table("bucket/renders/metadata", filesystem=filesystem).to_pylist()
        assert sorted(record["id"] for record in records) == [f"a/{index}" for index in range(4)]
        media = {path.removeprefix("bucket/renders/") for path in filesystem.find("bucket/renders/media")}
        assert media == {record["path"] for record in records}
        for record in records:
            assert filesystem.cat_file(f"bucket/renders/{record['path']}")[:3] == b"\xff\xd8\xff"

    put_manifest(steps=2)
    assert "4 items finished" in generate()
    check_records()
    put_manifest(steps=3)
    filesystem.invalidate_cache()
    assert "to render: sana 1; 3 finished before" in generate()
    filesystem.invalidate_cache()
    check_records()


def test_a_bucket_that_is_not_there(tmp_path: Path, checkpoints: Path, s3: dict[str, str], cluster: Cluster) -> None:
    rendermill = Rendermill(tmp_path, checkpoints, {**cluster.environment, **s3}, cluster)
    rendermill.model("sana", "sana-shapes")
    rendermill.manifest([{"prompt": "a cat"}])
    finished = rendermill.generate(output="s3://no-such-bucket/renders")
    assert (finished.status, finished.error.count("\n")) == (2, 1), finished
    assert "output s3://no-such-bucket/renders: cannot be written" in finished.error
    wrong_key = rendermill.run(
        "generate", rendermill.write_job(manifest="s3://b/x.parquet"), AWS_SECRET_ACCESS_KEY="no"
    )
    assert (wrong_key.status, wrong_key.error.count("\n")) == (2, 1), wrong_key
    assert "manifest s3://b/x.parquet" in wrong_key.error
    no_keys = {key: value for key, value in rendermill.environment.items() if not key.startswith("AWS_")}
    no_keys |= {"AWS_ENDPOINT_URL": s3["AWS_ENDPOINT_URL"], "AWS_EC2_METADATA_DISABLED": "true"}
    anonymous = Rendermill(tmp_path, checkpoints, no_keys, cluster).run(
        "generate", rendermill.write_job(manifest="s3://b/x.parquet"), HOME=str(tmp_path)
    )
    assert (anonymous.status, anonymous.error.count("\n")) == (2, 1), anonymous
    assert "manifest s3://b/x.parquet: cannot be read: Unable to locate credentials" in anonymous.error
