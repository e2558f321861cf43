"""A store with S3's conditional writes, in memory, whose writes may land late or lose their answers."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import fsspec
from fsspec import AbstractFileSystem


class Refused(Exception):
    """The error that S3's client raises if a condition does not hold."""

    response: ClassVar = {"Error": {"Code": "PreconditionFailed"}}


@dataclass
class Network:
    """Everything that is stored, and what will happen to the next writes.

    Attributes:
        objects: The stored contents by path.
        fates: What happens to the next writes, in order: "lands"; "late" takes effect when the test says so; "lost"
            takes effect, but its answer does not arrive.
        late: The writes that have not taken effect yet.
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    fates: list[str] = field(default_factory=list)
    late: list[Callable[[], object]] = field(default_factory=list)

    def send(self, effect: Callable[[], Any]) -> Any:
        """Make a change now, or keep it for later."""
        fate = self.fates.pop(0) if self.fates else "lands"
        if fate == "late":
            self.late.append(effect)
        elif fate == "lost":
            effect()
        if fate != "lands":
            raise TimeoutError("no answer")
        return effect()


NETWORK = Network()


class LateStore(AbstractFileSystem):
    """The view that every process has of `NETWORK`, as an fsspec file system."""

    protocol = ("late", "s3")
    cachable = False

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        inside = [name for name in list(NETWORK.objects) if name.rpartition("/")[0] == path.strip("/")]
        if not inside:
            raise FileNotFoundError(path)
        return [self.info(name) for name in inside] if detail else inside

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        data = self.cat_file(path)
        return {"name": path, "size": len(data), "type": "file", "ETag": f'"{_stamp(data)}"'}

    def cat_file(self, path: str, **_: Any) -> bytes:
        if path not in NETWORK.objects:
            raise FileNotFoundError(path)
        return NETWORK.objects[path]

    def _open(self, path: str, *_: Any, **__: Any) -> io.BytesIO:
        return io.BytesIO(self.cat_file(path))

    def pipe_file(self, path: str, data: bytes, mode: str = "", IfMatch: str | None = None, **_: Any) -> Any:  # noqa: N803
        def put() -> dict[str, str]:
            there = NETWORK.objects.get(path)
            if (mode == "create" and there is not None) or (IfMatch and (there is None or IfMatch != _stamp(there))):
                raise OSError(22, None) from Refused()
            NETWORK.objects[path] = data
            return {"ETag": f'"{_stamp(data)}"'}

        return NETWORK.send(put)

    def rm_file(self, path: str) -> None:
        NETWORK.send(lambda: NETWORK.objects.pop(path, None))

    def split_path(self, _: str) -> tuple[str, str, None]:
        raise OSError("no clock here")


def _stamp(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


fsspec.register_implementation("late", LateStore, clobber=True)
