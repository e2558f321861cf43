"""Tuning profiles are a cache: a file that cannot be used is named and ignored."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rendermill.actors.engine.tuning.batch_sizer import Learned
from rendermill.actors.engine.tuning.certificate import Certificate, Statement
from rendermill.actors.engine.tuning.profile import Profile
from rendermill.actors.services.tuning.profile_store import ProfileStore
from rendermill.manifests.request import Shape
from rendermill.manifests.storage.folder import Folder

KEY = {"checkpoint": "sana", "device": "a GPU"}
SHAPE = str(Shape(64, 32, 1, 2, True))
PROFILE = Profile(
    shapes={SHAPE: Learned(4, True, None, {1: [0.5, 0.4], 4: [1.0]}, {0: 10, 4: 20})},
    seconds_per_item={SHAPE: 0.25},
    bytes_per_item={SHAPE: 1000.0},
    start_up_seconds=12.5,
    certificate=Certificate(Statement("proven", "twice"), arguments={"eta": Statement("refuted", "same")}, seconds=2.5),
)


def changed(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps(json.loads(content) | changes).encode()


def changed_profile(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps(
        (stored := json.loads(content)) | {"profile": stored["profile"] | changes}
    ).encode()


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut off": (lambda content: content[:50], "it is damaged: "),
    "empty": (lambda _: b"", "it is damaged: "),
    "not UTF-8": (lambda _: b"\xff\xfe\x00", "it is damaged: "),
    "deep": (lambda _: b"[" * 100_000, "it is damaged: "),
    "a list": (lambda _: b"[1]", "it is damaged: "),
    "no version": (lambda _: b"{}", "it is damaged: "),
    "newer": (changed(format_version=99), "a newer rendermill wrote it"),
    "of nothing": (changed(of=3), "it is damaged: of: "),
    "a batch of none": (changed_profile(shapes={SHAPE: {"size": 0}}), "it is damaged: "),
    "a size in words": (changed_profile(shapes={SHAPE: {"size": "many"}}), "it is damaged: "),
    "no shape": (changed_profile(seconds_per_item={"large": 1.0}), "it is damaged: "),
    "a shape of nothing": (changed_profile(seconds_per_item={str(Shape(0, 0, 1, 1, False)): 1.0}), "it is damaged: "),
    "no verdict": (
        changed_profile(certificate={"seed_decides": {"verdict": "perhaps", "reason": ""}}),
        "it is damaged: profile.certificate.seed_decides.verdict: ",
    ),
    "not finite": (changed_profile(bytes_per_item={SHAPE: float("nan")}), "it is damaged: "),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_is_of_no_use_is_named_and_ignored(tmp_path: Path, damage: str) -> None:
    ProfileStore(Folder(str(tmp_path))).write(KEY, PROFILE)
    (file,) = tmp_path.glob("*.json")
    change, reason = DAMAGE[damage]
    file.write_bytes(change(file.read_bytes()))
    for look in (
        lambda store: store.read(KEY) == Profile(),
        lambda store: store.newest({"checkpoint": "sana"}) is None,
    ):
        store = ProfileStore(Folder(str(tmp_path)))
        assert look(store)
        (problem,) = store.problems
        assert problem.startswith(f"profile {file}: ignored, as {reason}")
        assert problem.isprintable()


def test_a_profile_is_read_as_it_was_written_among_files_of_others(tmp_path: Path) -> None:
    store = ProfileStore(Folder(str(tmp_path)))
    store.write(KEY, PROFILE)
    (tmp_path / "README").write_text("mine")
    (tmp_path / f"{'0' * 32}.json").write_text('{"format_version": 3}')
    assert store.read(KEY) == PROFILE
    assert store.newest({"checkpoint": "sana"}) == ("a GPU", PROFILE)
    assert store.problems == [f"profile {tmp_path}/README: ignored, as it is no profile"]


def test_a_profile_of_an_earlier_version_without_a_certificate_stays_of_use(tmp_path: Path) -> None:
    store = ProfileStore(Folder(str(tmp_path)))
    store.write(KEY, PROFILE)
    (file,) = tmp_path.glob("*.json")
    stored = json.loads(file.read_bytes())
    del stored["profile"]["certificate"]
    file.write_text(json.dumps(stored))
    assert store.read(KEY) == replace(PROFILE, certificate=Certificate())


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = ProfileStore(Folder(str(tmp_path / "file" / "profiles")))
    store.write(KEY, PROFILE)
    store.write_compiled(KEY, "name", b"compiled", instead_of="older")
    (problem,) = store.problems
    assert problem.startswith(f"profile {tmp_path}/file/profiles: cannot be written, so later runs learn anew: ")


def test_compiled_code_that_is_damaged_is_not_loaded(tmp_path: Path) -> None:
    store = ProfileStore(Folder(str(tmp_path)))
    for name in ("a", "b"):
        store.write_compiled(KEY, name, name.encode(), instead_of=None)
    damaged = next(tmp_path.glob("*/a"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    assert store.read_compiled(KEY) == [b"b"]
    assert store.problems == [f"profile {damaged}: ignored, as it is damaged"]
