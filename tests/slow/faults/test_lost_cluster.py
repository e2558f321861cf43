"""A cluster that is lost while a run goes on."""

import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.support.commands import ROOT, Rendermill
from tests.support.forked_workers import forking_cluster


def test_a_cluster_that_is_gone_ends_the_run_with_one_line(tmp_path: Path, checkpoints: Path) -> None:
    with forking_cluster() as head:
        environment = {**head.environment, "RAY_gcs_rpc_server_reconnect_timeout_s": "20"}
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
