"""Secrets in URLs: a job that has some uses them, and shows them nowhere."""

import base64
import hashlib
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from benchmarks.local_cluster import Cluster
from rendermill.manifests.errors import UserError
from rendermill.manifests.secrets import mask_secrets
from rendermill.manifests.storage.folder import Folder
from tests.support.commands import ROOT, Rendermill

PASSWORD, SIGNATURE = secrets.token_hex(8), secrets.token_hex(8)
SECRETS = re.compile(f"{PASSWORD}|{SIGNATURE}")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    """A server of the folder `served` that wants the password, for manifests the signature.

    `broken` gives every file of weights once, as planning reads the beginning of each.

    Yields:
        Its host and port.
    """
    given: set[Path] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            place = tmp_path / "served" / unquote(url.path).strip("/")
            is_gone = place in given and self.command == "GET"
            if "broken" in url.path and place.suffix == ".safetensors" and self.command == "GET":
                given.add(place)
            is_signed = place.suffix != ".parquet" or url.query == f"sig={SIGNATURE}"
            if self.headers["Authorization"] != f"Basic {base64.b64encode(f'me:{PASSWORD}'.encode()).decode()}":
                self.send_error(401)
            elif not is_signed:
                self.send_error(403)
            elif is_gone or not place.exists():
                self.send_error(404)
            elif place.is_dir():
                names = [f"{path.name}/" if path.is_dir() else path.name for path in place.iterdir()]
                self.answer("".join(f'<a href="{name}">{name}</a>' for name in names).encode())
            else:
                self.answer(place.read_bytes())

        do_HEAD = do_GET  # noqa: N815

        def answer(self, body: bytes) -> None:
            start, _, end = self.headers.get("Range", "bytes=-").removeprefix("bytes=").partition("-")
            part = body[int(start or 0) : int(end) + 1 if end else None]
            self.send_response(206 if start else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", hashlib.sha256(self.path.encode() + body).hexdigest())
            self.send_header("Content-Length", str(len(part)))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{int(start) + len(part) - 1}/{len(body)}")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(part)

        def log_message(self, *arguments: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_job_uses_the_secrets_of_its_urls_and_shows_them_nowhere(
    rendermill: Rendermill, checkpoints: Path, cluster: Cluster, store: str
) -> None:
    served = f"http://me:{PASSWORD}@{store}"
    for name in ("sana", "broken"):
        (rendermill.folder / "served").mkdir(exist_ok=True)
        (rendermill.folder / "served" / name).symlink_to(checkpoints / "sana-shapes")
        rendermill.model(name, "sana-shapes")
        rendermill.models[name]["checkpoint"] = f"{served}/{name}"
    rows = [{"prompt": "a cat", "model": name} for name in rendermill.models]
    rendermill.manifest([*rows, {"prompt": "", "model": "sana"}], "served/prompts.parquet")
    job = rendermill.write_job(manifest=f"{served}/prompts.parquet?sig={SIGNATURE}", name="${oc.env:NAME_OF_RUN}")
    rendermill.environment = {**rendermill.environment, "NAME_OF_RUN": f"run-{PASSWORD}"}
    drawn = rendermill.run("generate", job, TMPDIR=str(rendermill.folder))
    assert drawn.status == 1, drawn
    assert f"stopped: broken: OSError: FileNotFoundError: http://me:***@{store}/broken/" in drawn.out
    (record,) = rendermill.table("metadata")
    assert record["checkpoint"] == f"http://me:***@{store}/sana"
    (rejected,) = rendermill.table("rejected")
    assert rejected["file"] == f"http://me:***@{store}/prompts.parquet?sig=***"
    retried = rendermill.run("retry", rendermill.output)
    assert f"{rejected['file']}: *** stands for a secret" in retried.error
    others = [
        rendermill.run("status", rendermill.output),
        rendermill.run("generate", job, f"manifest={served}/none.parquet?sig={SIGNATURE}"),
    ]
    for finished in (drawn, retried, *others):
        assert not SECRETS.search(finished.out + finished.error), finished
    kept = [rendermill.output, *rendermill.folder.glob("rendermill-*.log"), cluster.logs]
    files = [path for place in kept for path in (place, *place.rglob("*")) if path.is_file()]
    assert any("ray-data" in path.name for path in files)
    assert [path for path in files if SECRETS.search(path.read_bytes().decode("latin-1"))] == []


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("s3://key:se/cr+et@bucket/x@2", "s3://key:***@bucket/x@2"),
        ("sftp://me:se@cret@host:22/a:b", "sftp://me:***@host:22/a:b"),
        ("https://token@host/x", "https://***@host/x"),
        (
            "url='https://h/x?part=1&X-Amz-Signature=a%3D': no",
            "url='https://h/x?part=1&X-Amz-Signature=***': no",
        ),
        ("http://host:9000/a@b", "http://host:9000/a@b"),
        ("?url=http://h/?access_token=ab?c&x=1", "?url=http://h/?access_token=***&x=1"),
        ("see (https://h/x?sig=a.b.c...), https://u:p@@h", "see (https://h/x?sig=***...), https://u:***@@h"),
        ("abfs://container@account/x?part=1", "abfs://container@account/x?part=1"),
    ],
)
def test_what_is_masked(url: str, masked: str) -> None:
    assert mask_secrets(url) == masked


def test_masking_takes_no_longer_than_in_proportion_to_the_text() -> None:
    script = """
from rendermill.manifests.secrets import mask_secrets, secrets_in
for part in ("://a:", "://:@", "?", "?key", "?key=.", "a@", "http://", "&key=a", "://a:b@@", "://:1/", "https://a:b@c/"):
    for text in (part * 30_000, "://a:" + part * 30_000 + "@", "?key=" + part * 30_000 + "x", part * 30_000 + "="):
        mask_secrets(text), secrets_in(text)
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=100)


def test_a_secret_that_a_store_would_take_for_its_buckets_name_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^s3://key:\*\*\*@bucket/x: this store takes no secret from a URL"):
        Folder(f"s3://key:{PASSWORD}/x@bucket/x").names("")
