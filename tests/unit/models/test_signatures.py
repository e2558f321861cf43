"""What a pipeline of diffusers takes, as its source says, and the families made of it."""

import inspect
from typing import Any

import diffusers
import pytest

from rendermill.models.inputs import InputSpec
from rendermill.models.inspection.generic_family import UnsupportedPipeline, generic_family
from rendermill.models.inspection.signatures import signature

PICTURE, MASK = InputSpec("image"), InputSpec("mask")


@pytest.mark.parametrize(
    ("pipeline", "inputs"),
    [
        ("FluxPipeline", {}),
        ("StableDiffusionXLInpaintPipeline", {"image": PICTURE, "mask_image": MASK}),
        ("StableDiffusionXLControlNetPipeline", {"image": PICTURE}),
        ("WanImageToVideoPipeline", {"image": PICTURE, "last_image": InputSpec("image", is_required=False)}),
        ("CogVideoXVideoToVideoPipeline", {"video": InputSpec("video")}),
        ("QwenImageEditPlusPipeline", {"image": InputSpec("images", has_size_of_output=False)}),
        ("Flux2Pipeline", {"image": InputSpec("images", is_required=False, has_size_of_output=False)}),
        ("FluxKontextPipeline", {"image": InputSpec("image", is_required=False, has_size_of_output=False)}),
        (
            "WanVACEPipeline",
            {
                "video": InputSpec("video", is_required=False),
                "mask": InputSpec("mask video", is_required=False),
                "reference_images": InputSpec("images", is_required=False, has_size_of_output=False),
            },
        ),
    ],
)
def test_pictures_and_videos_are_inputs(pipeline: str, inputs: dict[str, InputSpec]) -> None:
    found = signature(pipeline)
    assert found is not None
    assert found.inputs == inputs


@pytest.mark.parametrize(
    ("pipeline", "argument", "type_"),
    [
        ("FluxPipeline", "true_cfg_scale", float),
        ("FluxPipeline", "sigmas", list[float]),
        ("FluxPipeline", "max_sequence_length", int),
        ("StableDiffusionXLInpaintPipeline", "strength", float),
        ("StableDiffusionXLPipeline", "original_size", tuple[int, int]),
        ("StableDiffusionXLControlNetPipeline", "controlnet_conditioning_scale", float),
        ("SanaSprintImg2ImgPipeline", "complex_human_instruction", list[str]),
        ("PixArtSigmaPipeline", "use_resolution_binning", bool),
    ],
)
def test_simple_values_are_further_arguments(pipeline: str, argument: str, type_: Any) -> None:
    found = signature(pipeline)
    assert found is not None
    assert found.further[argument] == type_


@pytest.mark.parametrize("argument", ["prompt_embeds", "ip_adapter_image", "joint_attention_kwargs", "latents"])
def test_what_a_table_cannot_give_is_refused_with_a_reason(argument: str) -> None:
    found = signature("FluxPipeline")
    assert found is not None
    assert argument in found.refused
    assert argument not in found.further


def test_every_argument_has_one_place() -> None:
    for pipeline in ("FluxPipeline", "LTX2Pipeline", "WanAnimatePipeline", "KandinskyV22CombinedPipeline"):
        found = signature(pipeline)
        assert found is not None
        given = [*found.fields.values(), *found.inputs, *found.further, *found.refused]
        assert len(given) == len(set(given))
        taken = set(inspect.signature(getattr(diffusers, pipeline).__call__).parameters) - {"self"}
        managed = taken - set(given)
        assert set(given) <= taken
        assert managed >= {"generator", "output_type", "return_dict"}
        assert not managed & {"strength", "guidance_rescale", "mode"}


@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        ("FluxPipelin", "has no pipeline FluxPipelin; did you mean FluxPipeline?"),
        ("StableAudioPipeline", "StableAudioPipeline renders neither images nor videos"),
        ("DDPMPipeline", "DDPMPipeline takes no prompt, which every row has"),
        (
            "KandinskyPipeline",
            "cannot be given what it needs: image_embeds: it takes tensors, which a table cannot give",
        ),
    ],
)
def test_a_pipeline_that_cannot_be_run_says_why(pipeline: str, words: str) -> None:
    with pytest.raises(UnsupportedPipeline) as refusal:
        generic_family(pipeline)
    assert words in str(refusal.value)
