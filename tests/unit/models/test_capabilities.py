"""What models can render, and what quantization schemes need: tables without torch."""

import subprocess
import sys
from typing import Any

import pytest

from rendermill.manifests.request import OPTIONAL_FIELDS
from rendermill.models.capabilities import Capabilities
from rendermill.models.quantization.schemes import SCHEMES, Scheme
from rendermill.models.registry import FAMILIES

IMAGE = Capabilities("image", size_multiple=32, max_num_inference_steps=1000)
VIDEO = Capabilities("video", size_multiple=16, frame_multiple=4, arguments=frozenset({"guidance_scale_2"}))
FIELDS = dict.fromkeys(OPTIONAL_FIELDS) | {
    "width": 64,
    "height": 32,
    "num_frames": 1,
    "num_inference_steps": 2,
    "guidance_scale": 4.5,
}
CLIP = {"num_frames": 5, "fps": 16.0}


@pytest.mark.parametrize(
    ("capabilities", "changes", "problem"),
    [
        (IMAGE, {}, None),
        (IMAGE, {"negative_prompt": "blurry"}, None),
        (IMAGE, {"width": 50}, "width: 50 is not a multiple of 32; 32 or 64 would be"),
        (IMAGE, {"height": 8}, "height: 8 is not a multiple of 32; 32 would be"),
        (IMAGE, {"num_inference_steps": 1001}, "num_inference_steps: 1001 is over the scheduler's 1000"),
        (IMAGE, {"guidance_scale_2": 2.0}, "guidance_scale_2: this model has no second expert; leave it empty"),
        (IMAGE, {"fps": 16.0}, "num_frames, fps: this model renders images; leave them empty"),
        (VIDEO, CLIP | {"guidance_scale_2": 2.0}, None),
        (VIDEO, CLIP | {"negative_prompt": "x"}, "negative_prompt: this model takes none; leave it empty"),
        (VIDEO, CLIP | {"num_frames": 6}, "num_frames: 6 is not 4k + 1; 5 or 9 would be"),
        (VIDEO, {"num_frames": 5}, "fps: None is outside 0 … 1000"),
    ],
)
def test_a_request_is_refused_with_a_reason(
    capabilities: Capabilities, changes: dict[str, Any], problem: str | None
) -> None:
    found = capabilities.problem(FIELDS | changes)
    assert (None if found is None else str(found)) == problem


def test_an_argument_is_part_of_the_batch_key_or_handled_per_item() -> None:
    with pytest.raises(ValueError, match="strength: neither part of the batch key nor handled per item"):
        Capabilities("image", 32, arguments=frozenset({"strength"}))
    assert Capabilities("image", 32, arguments=frozenset({"strength"}), per_item=IMAGE.per_item | {"strength"})


def test_the_defaults_of_families_are_fields_of_requests() -> None:
    for family in FAMILIES.values():
        assert family.defaults.keys() <= OPTIONAL_FIELDS.keys()


@pytest.mark.parametrize(
    ("needs", "on_gpu", "dtypes", "problem"),
    [
        ({}, False, {"float32"}, None),
        ({"needs_gpu": True}, False, {"float32"}, "x needs a GPU; leave it out on a CPU"),
        ({"needs_gpu": True}, True, {"float32"}, None),
        (
            {"package": "no_such_package", "extra": "y"},
            True,
            {"float32"},
            "x needs no_such_package; install it with: pip install 'rendermill[y]'",
        ),
        ({"package": "torch"}, True, {"float32"}, None),
        ({"dtype": "bfloat16"}, True, {"bfloat16", "float32"}, "x needs `dtype: bfloat16`"),
    ],
)
def test_a_scheme_says_what_it_needs(
    needs: dict[str, Any], on_gpu: bool, dtypes: set[str], problem: str | None
) -> None:
    assert Scheme("module:function", **needs).problem("x", on_gpu, dtypes) == problem


def test_planning_needs_no_torch() -> None:
    code = "import rendermill.models.registry, sys; sys.exit('torch' in sys.modules)"
    assert SCHEMES
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
