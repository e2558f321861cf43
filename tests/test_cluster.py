"""How people start it: what a submitted job packs and refuses, and what a terminal shows; see also test_submit.py."""

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
from conftest import ROOT, Rendermill

from benchmarks.local_cluster import Cluster, ray_head


def submit(cluster: Cluster, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ray", "job", "submit", "--working-dir", ".", "--", *command],
        cwd=ROOT,
        env=cluster.environment | {"RAY_API_SERVER_ADDRESS": cluster.dashboard},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_mistake_in_a_submitted_job(rendermill: Rendermill, cluster: Cluster) -> None:
    rendermill.model("sana", "sana-shapes")
    rendermill.manifest([{"prompt": "a cat"}])
    job = str(rendermill.write_job())
    finished = submit(cluster, "python", "-m", "jobs.cli", "generate", job, "output=out/lost")
    assert finished.returncode != 0
    assert "exit code 2" in finished.stdout + finished.stderr
    assert "output: out/lost is relative to a submitted job's own folder" in finished.stdout


def test_what_a_submitted_job_packs(cluster: Cluster) -> None:
    (ROOT / "out").mkdir(exist_ok=True)
    (ROOT / "out" / "large.bin").write_bytes(bytes(1000))
    list_files = "import glob; print('packed:', *glob.glob('**/*', recursive=True, include_hidden=True))"
    finished = submit(cluster, "python", "-c", list_files)
    (line,) = (line for line in finished.stdout.splitlines() if line.startswith("packed: "))
    packed = line.split()[1:]
    for name in ("jobs/cli.py", "actors/renderer.py", "models/sana.py", "manifests/schema.py", "examples/demo.yaml"):
        assert name in packed
    left_out = (".venv/", "out/", ".git/", "tests/", "docs/", "benchmarks/", ".mypy_cache/", ".ruff_cache/")
    assert not [path for path in packed if path.startswith(left_out)]


def test_a_bar_a_model_on_a_terminal(rendermill: Rendermill) -> None:
    rendermill.model("sana", "sana-shapes")
    rendermill.model("wan", "wan-shapes")
    rendermill.manifest(
        [{"prompt": f"prompt {index}", "model": model} for index in range(3) for model in ("sana", "wan")]
    )
    terminal, inner = pty.openpty()
    command = [sys.executable, "-m", "jobs.cli", "generate", str(rendermill.write_job())]
    process = subprocess.Popen(command, cwd=ROOT, env=rendermill.environment, stdout=inner, stderr=inner)
    os.close(inner)
    shown = b""
    try:
        while chunk := os.read(terminal, 4096):
            shown += chunk
    except OSError:  # the terminal closes with its last writer
        pass
    os.close(terminal)
    assert process.wait(60) == 0, shown[-2000:].decode()
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()))
    for model in ("sana", "wan"):
        assert [line for line in lines if line.startswith(model) and "━" in line and "3/3" in line]
    assert lines[0] == "to draw: sana 3, wan 3"
    assert {line.split()[0] for line in lines if line.strip()} <= {"to", "sana", "wan", "sana:", "wan:", "6", "output:"}


def test_a_cluster_that_is_gone_ends_the_run_with_one_line(tmp_path: Path, checkpoints: Path) -> None:
    with ray_head() as head:
        environment = {**head.environment, "RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
        rendermill = Rendermill(tmp_path, checkpoints, environment)
        rendermill.model("sana", "sana-shapes", batch=1, defaults={"num_inference_steps": 4})
        rendermill.manifest([{"prompt": f"prompt {index}"} for index in range(1000)])
        command = [Path(sys.executable).with_name("rendermill"), "generate", rendermill.write_job()]
        run = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        while not list(rendermill.output.glob("_pending/*.parquet")):
            assert run.poll() is None
            time.sleep(0.1)
        (server,) = [process for process in psutil.process_iter(["name", "cmdline"]) if _is_head(process, head.address)]
        server.kill()
        out, _ = run.communicate(timeout=60)
    assert run.returncode == 1, out
    assert "stopped: cluster: no answer for" in out
    assert "the same command goes on from here" in out
    assert len(rendermill.table("metadata")) > 0
    assert list(rendermill.output.glob("_pending/*.parquet")) == []


def _is_head(process: psutil.Process, address: str) -> bool:
    is_one = process.info["name"] == "gcs_server"
    return is_one and f"--gcs_server_port={address.rpartition(':')[2]}" in process.info["cmdline"]
