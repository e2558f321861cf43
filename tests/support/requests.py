"""Requests for tests that render without a manifest."""

from typing import Any

from rendermill.manifests.request import Request


def request_for(prompt: str, seed: int, **fields: Any) -> Request:
    """Return the request of an image of 64 x 32 pixels, except for these fields."""
    given: dict[str, Any] = {
        "id": "id",
        "sample_index": 0,
        "model": "model",
        "negative_prompt": None,
        "width": 64,
        "height": 32,
        "num_frames": 1,
        "fps": None,
        "num_inference_steps": 4,
        "guidance_scale": 4.5,
        "guidance_scale_2": None,
    }
    return Request(**{**given, "prompt": prompt, "seed": seed, **fields})
