"""The real S3 server of the tests, its failures, and a proxy before it that makes requests fail."""

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import s3fs

from benchmarks.local_cluster import free_port

_SERVER = Path(__file__).parents[2] / "tests" / "s3-server"
_SECONDS_BETWEEN_LOOKS = 0.1
_NUM_TRIES = 3
"""Now and then a new Ceph takes its first disk for another's ("wrong fsid")."""


@contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, str]]:
    """Starts the server, and sets the environment with which clients reach it, until the block ends.

    Yields:
        That environment's variables.
    """
    with patch.dict(os.environ):
        for number in range(_NUM_TRIES):
            place = folder / str(number)
            os.environ |= {"S3_PORT": str(free_port()), "S3_MON_PORT": str(free_port()), "S3_FOLDER": str(place)}
            started = subprocess.run([_SERVER, "start", place], capture_output=True, text=True)
            try:
                if started.returncode == 0:
                    variables = dict(word.split("=", 1) for word in started.stdout.split()[1:])
                    os.environ |= variables
                    yield variables
                    return
            finally:
                subprocess.run([_SERVER, "stop", place], check=True)
        raise RuntimeError(f"the S3 server does not start: {started.stderr[-1000:]}")


@contextmanager
def s3_bucket(folder: Path, name: str) -> Iterator[str]:
    """The server of `s3_server` with a new bucket, whose URL it yields."""
    with s3_server(folder):
        s3fs.S3FileSystem().mkdir(name)
        yield f"s3://{name}"


def kill_gateway() -> None:
    """Let every request fail from now on."""
    subprocess.run([_SERVER, "kill-gateway", os.environ["S3_FOLDER"]], check=True)


def restart_gateway() -> None:
    """Go on where `kill_gateway` broke off."""
    subprocess.run([_SERVER, "start", os.environ["S3_FOLDER"]], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def faulty_proxy(folder: Path, share: float, client_timeout_seconds: float) -> Iterator[Path]:
    """A proxy before the server, Debian's mitmproxy: from now on clients use it, and a share of their requests fails.

    Args:
        client_timeout_seconds: how long clients wait for an answer; the proxy is silent for twice as long.

    Yields:
        The file that counts the faults, as JSON.
    """
    counts = folder / "faults.json"
    counts.write_text(json.dumps({}))
    silence = {"FAULTS_SECONDS_OF_SILENCE": str(2 * client_timeout_seconds)}
    variables = silence | {"FAULTS_SHARE": str(share), "FAULTS_COUNTS": str(counts)}
    os.environ["FSSPEC_S3"] = json.dumps({"config_kwargs": {"read_timeout": client_timeout_seconds}})
    behind = os.environ["AWS_ENDPOINT_URL"]
    with _proxy(folder, "faults.py", variables) as endpoint:
        try:
            os.environ["AWS_ENDPOINT_URL"] = endpoint
            yield counts
        finally:
            os.environ["AWS_ENDPOINT_URL"] = behind


@contextmanager
def holding_proxy(folder: Path) -> Iterator[str]:
    """A proxy before the server for the client that is to be cut off (`holding.py`), whose endpoint it yields.

    Args:
        folder: while it has a file `cut`, the client is.
    """
    with _proxy(folder, "holding.py", {"HOLD_WHILE": str(folder / "cut")}) as endpoint:
        yield endpoint


@contextmanager
def _proxy(folder: Path, addon: str, variables: Mapping[str, str]) -> Iterator[str]:
    """Debian's mitmproxy with an addon of this folder, before the server; yields its endpoint."""
    port, behind, log_file = free_port(), os.environ["AWS_ENDPOINT_URL"], folder / "proxy.log"
    command = ["mitmdump", "--mode", f"reverse:{behind}", "--listen-host", "127.0.0.1", "--listen-port", str(port)]
    command += ["--set", "keep_host_header=true", "--set", f"confdir={folder}"]
    with log_file.open("wb") as log:
        script = ["-s", str(Path(__file__).with_name(addon))]
        proxy = subprocess.Popen(command + script, env=os.environ | variables, stdout=log, stderr=log)
        try:
            while "listening" not in log_file.read_text():
                if proxy.poll() is not None:
                    raise SystemExit(log_file.read_text())
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            yield f"http://127.0.0.1:{port}"
        finally:
            proxy.kill()
            proxy.wait()
