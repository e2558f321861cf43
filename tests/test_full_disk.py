"""A disk that is full: the run waits, stops, and goes on once there is room."""

import subprocess

import pytest
from conftest import Rendermill


def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(rendermill: Rendermill) -> None:
    rendermill.output.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=80k", "tmpfs", rendermill.output]
    if subprocess.run(mounted, capture_output=True).returncode != 0:
        pytest.skip("may not mount a small disk here")
    try:
        rendermill.model("sana", "sana-shapes", defaults={"width": 128, "height": 128})
        rendermill.manifest([{"prompt": f"a red circle {index}"} for index in range(24)])
        stopped = rendermill.generate(storage_patience="3s")
        assert stopped.status == 1, stopped
        assert "No space left on device" in stopped.out
        assert "UDF" not in stopped.out
        subprocess.run(["mount", "-o", "remount,size=20m", rendermill.output], check=True)
        assert rendermill.generate().status == 0
        assert len(rendermill.table("metadata")) == 24
        assert list((rendermill.output / "_tmp").iterdir()) == []
    finally:
        subprocess.run(["umount", rendermill.output], check=True)
