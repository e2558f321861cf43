"""A checkpoint of the Hugging Face Hub, from a server on this machine that speaks the part of its API that is used."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from benchmarks.local_cluster import Cluster
from tests.support.commands import ROOT, Rendermill

COMMIT = "c" * 40


def blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@pytest.fixture
def hub(checkpoints: Path) -> Iterator[str]:
    """The endpoint of a Hub with one model, owner/sana."""
    folder = checkpoints / "sana-shapes"
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            name = path.removeprefix(f"/owner/sana/resolve/{COMMIT}/")
            if path in ("/api/models/owner/sana", *(f"/api/models/owner/sana/revision/{r}" for r in ("main", COMMIT))):
                siblings = [
                    {"rfilename": file, "size": len(data), "blobId": blob_id(data)} for file, data in files.items()
                ]
                self.answer(json.dumps({"id": "owner/sana", "sha": COMMIT, "siblings": siblings}).encode())
            elif path == f"/api/models/owner/sana/tree/{COMMIT}":
                tree = [
                    {"type": "file", "path": file, "size": len(data), "oid": blob_id(data)}
                    for file, data in files.items()
                ]
                self.answer(json.dumps(tree).encode())
            elif name in files:
                self.answer(files[name], {"ETag": f'"{blob_id(files[name])}"'})
            else:
                self.send_error(404)

        do_HEAD = do_GET  # noqa: N815

        def answer(self, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(body)))
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_checkpoint_of_the_hub(tmp_path: Path, checkpoints: Path, hub: str, cluster: Cluster) -> None:
    environment = {**os.environ, "RAY_ADDRESS": "local", "HF_HOME": str(tmp_path / "hub")}
    environment |= {"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0"}
    rendermill = Rendermill(tmp_path, checkpoints, environment)
    rendermill.model("sana", "sana-shapes", revision="main")
    rendermill.models["sana"]["checkpoint"] = "owner/sana"
    rendermill.manifest([{"prompt": "a cat"}])
    finished = rendermill.generate()
    assert finished.status == 0, finished
    (record,) = rendermill.table("metadata")
    assert (record["checkpoint"], record["revision"]) == ("owner/sana", COMMIT)

    name = "vae/diffusion_pytorch_model.safetensors"
    (cached,) = (tmp_path / "hub").rglob(name)
    cached.resolve().write_bytes(b"damaged")
    program = f"""\
from rendermill.actors.checkpoints.checkpoint import describe, fetched
with fetched(describe("owner/sana", "main"), 0.0) as folder:
    print((folder / {name!r}).stat().st_size)"""
    command = [sys.executable, "-c", program]
    told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert int(told.stdout) == (checkpoints / "sana-shapes" / name).stat().st_size, "fetched again"
    missing = rendermill.run(
        "plan", rendermill.write_job(), "models.sana.revision=no-such-branch", **cluster.environment
    )
    assert (missing.status, missing.error.count("\n")) == (2, 1), missing
    assert "models.sana.checkpoint owner/sana" in missing.error
