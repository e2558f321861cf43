"""The real S3 server of the tests, its failures, and a proxy before it that makes requests fail."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.local_cluster import free_port

_SERVER = Path(__file__).parents[2] / "tests" / "s3-server"


@contextmanager
def s3_server(folder: Path) -> Iterator[None]:
    """Starts the server, and sets the environment with which clients reach it."""
    os.environ |= {"S3_PORT": str(free_port()), "S3_MON_PORT": str(free_port())}
    try:
        started = subprocess.run([_SERVER, "start", folder], check=True, stdout=subprocess.PIPE, text=True)
        os.environ |= dict(word.split("=", 1) for word in started.stdout.split()[1:])
        yield
    finally:
        subprocess.run([_SERVER, "stop", folder], check=True)


def kill_gateway(folder: Path) -> None:
    """Let every request fail from now on."""
    subprocess.run([_SERVER, "kill-gateway", folder], check=True)


def restart_gateway(folder: Path) -> None:
    """Go on where `kill_gateway` broke off."""
    subprocess.run([_SERVER, "start", folder], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def faulty_proxy(folder: Path, share: float) -> Iterator[Path]:
    """A proxy before the server, Debian's mitmproxy: from now on clients use it, and a share of their requests fails.

    Yields:
        The file that counts the faults, as JSON.
    """
    port, counts = free_port(), folder / "faults.json"
    counts.write_text(json.dumps({}))
    behind = os.environ["AWS_ENDPOINT_URL"]
    command = ["mitmdump", "--mode", f"reverse:{behind}", "--listen-host", "127.0.0.1", "--listen-port", str(port)]
    command += [
        "--set",
        "keep_host_header=true",
        "--set",
        f"confdir={folder}",
        "-s",
        Path(__file__).with_name("faults.py"),
    ]
    environment = os.environ | {"FAULTS_SHARE": str(share), "FAULTS_COUNTS": str(counts)}
    with (folder / "proxy.log").open("wb") as log:
        proxy = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
            while "listening" not in (folder / "proxy.log").read_text():
                if proxy.poll() is not None:
                    raise SystemExit((folder / "proxy.log").read_text())
            yield counts
        finally:
            os.environ["AWS_ENDPOINT_URL"] = behind
            proxy.kill()
            proxy.wait()
