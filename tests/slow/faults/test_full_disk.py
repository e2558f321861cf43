"""A full disk: the run waits, stops, and continues once there is room."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rendermill.jobs.cli import main
from rendermill.manifests.storage.folder import Folder
from tests.support.commands import Rendermill

Mount = Callable[[Path, str], None]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mount small disks for a test, which is skipped if this is not allowed."""
    mounted: list[Path] = []

    def mount_at(folder: Path, options: str) -> None:
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        if subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("may not mount a small disk here")
        mounted.append(folder)

    yield mount_at
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(rendermill: Rendermill, mount: Mount) -> None:
    mount(rendermill.output, "size=80k")
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


def test_a_disk_that_holds_too_many_files_is_not_called_full(
    tmp_path: Path, mount: Mount, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    mount(output, "size=1m,nr_inodes=16")
    (output / "rendermill.json").write_text("{}")
    folder, told = Folder(str(output)), "No inodes are left on the disk, though bytes are: it holds too many files"
    with pytest.raises(OSError, match="No space left on device"):
        folder.write("media", bytes(2**21))
    with pytest.raises(OSError, match="No space left on device"):
        for number in range(16):
            (output / str(number)).touch()
    with pytest.raises(OSError, match=told):
        folder.write_all({"media": b""})
    assert main(["verify", str(output), "--repair"]) == 2
    assert f"output {output}: cannot be written: [Errno 28] {told}: '{output}'" in capfd.readouterr().err
