"""Known answers for ids, seeds and hashes: they are part of the output format. `b2sum` gives the same digests."""

from pathlib import PurePosixPath

from rendermill.manifests import identity
from rendermill.manifests.output.layout import media_path


def test_item_key() -> None:
    # printf 'cat\0000' | b2sum -l 128
    assert identity.item_key("cat", 0).hex() == "2919b358fbb82d1034c1b49589021ec9"
    assert identity.item_key("夜/..", 1).hex() == "d9a41cb83590a9af5a4ccb1f89ccefdd"


def test_content_hash_leaves_out_the_id_and_nulls() -> None:
    # printf '{"prompt":"a cat","width":64}' | b2sum -l 128
    row = {"width": 64, "id": "x", "prompt": "a cat", "seed": None}
    assert identity.content_hash(row).hex() == "e764f8f8c8a36b7f74ed9731f23e47d3"


def test_sample_seed() -> None:
    # printf '[7,"cat",0]' | b2sum | cut -c1-16, without its last bit
    assert identity.sample_seed(7, "cat", 0, None) == int("edb87560fd641f43", 16) >> 1
    assert identity.sample_seed(7, "cat", 2, 40) == 42
    assert 0 <= identity.sample_seed(7, "cat", 1, None) < 2**63


def test_request_and_settings_hash() -> None:
    # printf '{"dtype":{"default":"bfloat16"}}' | b2sum -l 128
    assert identity.settings_hash({"dtype": {"default": "bfloat16"}}) == "fe49016b3d053adf2891401ce6d8ddf8"
    # printf '{"request":{"id":"cat"},"settings":"00"}' | b2sum -l 128
    assert identity.request_hash({"id": "cat"}, "00") == "ef47b59cfa3a9ce07eff26d930e6aa32"


def test_canonical_json_writes_what_json_lacks_as_text() -> None:
    assert identity.canonical_json({"b": b"\x01", "a": float("nan")}) == b'{"a":NaN,"b":"01"}'


def test_media_paths_stay_inside_the_output_and_apart() -> None:
    hash_a, hash_b = "ab" * 16, "cd" * 16
    short = identity.blake2b_128([hash_a, "f"]).hex()[:12]
    assert media_path("sana", "a/b ü", 2, hash_a, "f", "png") == f"media/sana/{short[:2]}/a%2Fb%20%C3%BC-2.{short}.png"
    assert media_path("sana", "a", 2, hash_a, "f", "png") != media_path("sana", "a", 2, hash_a, "g", "png")
    for item_id in ("../../etc", "..", "/abs", "a" * 5000, "ü" * 500, "\x00\n", ""):
        path = PurePosixPath(media_path("sana", item_id, 0, hash_a, "f", "png"))
        assert path.parts[:3] == ("media", "sana", short[:2])
        assert len(path.parts) == 4
        assert len(path.name.encode()) < 120
    upper, lower = (media_path("sana", *item, "f", "png") for item in (("A", 0, hash_a), ("a", 0, hash_b)))
    assert upper.lower() != lower.lower()
    cut = media_path("sana", "a" * 79 + "ü", 0, hash_a, "f", "png")
    assert cut == f"media/sana/{short[:2]}/{'a' * 79}-0.{short}.png", "an escape was cut through"
