"""Tiny checkpoints of pipelines that rendermill has no code for: each with stock's bits, and the seed alone decides."""

import re
from pathlib import Path

import pytest
import torch

from rendermill.models.inspection.generic_family import UnsupportedPipeline, generic_family
from rendermill.models.inspection.signatures import signature
from rendermill.models.inspection.sources import pipeline_classes
from rendermill.models.registry import load
from tests.pipelines import images, kandinsky, sounds, stable_diffusion, variants, videos, wan_animate
from tests.pipelines.equality import SETTINGS, Case, call_stock, hold, request_of, save
from tests.support.commands import ROOT

_EXACT_SIZE = {"use_resolution_binning": False}
CASES = {
    "FluxPipeline": Case(images.flux, {}, {"max_sequence_length": 48}),
    "StableDiffusionXLPipeline": Case(images.sdxl, {"negative_prompt": "blurry"}, {}),
    "StableDiffusionXLInpaintPipeline": Case(images.sdxl_inpaint, {}, {}),
    "StableDiffusionXLControlNetPipeline": Case(images.sdxl_controlnet, {}, {}),
    "StableDiffusion3Pipeline": Case(images.sd3, {"negative_prompt": "blurry"}, {"max_sequence_length": 48}),
    "PixArtSigmaPipeline": Case(images.pixart_sigma, {}, _EXACT_SIZE),
    "QwenImagePipeline": Case(images.qwen_image, {"negative_prompt": "blurry"}, {}),
    "ZImagePipeline": Case(images.z_image, {}, {}),
    "CogVideoXPipeline": Case(videos.cogvideox, {}, {"max_sequence_length": 24}),
    "HunyuanVideo15Pipeline": Case(videos.hunyuan_video15, {}, {}),
    "FluxImg2ImgPipeline": Case(variants.of(images.flux, "FluxImg2ImgPipeline"), {}, {"max_sequence_length": 48}),
    "FluxInpaintPipeline": Case(variants.of(images.flux, "FluxInpaintPipeline"), {}, {"max_sequence_length": 48}),
    "StableDiffusionXLImg2ImgPipeline": Case(
        variants.of(images.sdxl, "StableDiffusionXLImg2ImgPipeline"), {"num_inference_steps": 6}, {}
    ),
    "StableDiffusion3Img2ImgPipeline": Case(variants.of(images.sd3, "StableDiffusion3Img2ImgPipeline"), {}, {}),
    "QwenImageImg2ImgPipeline": Case(variants.of(images.qwen_image, "QwenImageImg2ImgPipeline"), {}, {}),
    "QwenImageInpaintPipeline": Case(variants.of(images.qwen_image, "QwenImageInpaintPipeline"), {}, {}),
    "ZImageImg2ImgPipeline": Case(variants.of(images.z_image, "ZImageImg2ImgPipeline"), {}, {}),
    "StableDiffusionPipeline": Case(stable_diffusion.text, {}, {}),
    "StableDiffusionImg2ImgPipeline": Case(
        variants.of(stable_diffusion.text, "StableDiffusionImg2ImgPipeline"), {"num_inference_steps": 6}, {}
    ),
    "StableDiffusionInpaintPipeline": Case(
        variants.of(stable_diffusion.text, "StableDiffusionInpaintPipeline"), {}, {}
    ),
    "AnimateDiffPipeline": Case(stable_diffusion.animate, {}, {}),
    "CogVideoXVideoToVideoPipeline": Case(
        variants.of(videos.cogvideox, "CogVideoXVideoToVideoPipeline"), {}, {"max_sequence_length": 24}
    ),
    "KandinskyV22CombinedPipeline": Case(kandinsky.combined, {}, {"prior_num_inference_steps": 2}),
    "WanAnimatePipeline": Case(
        wan_animate.animate, {}, {"segment_frame_length": 5, "prev_segment_conditioning_frames": 1}
    ),
    "Flux2KleinPipeline": Case(
        images.flux2_klein, {"height": 64}, {"max_sequence_length": 48, "text_encoder_out_layers": (1,)}
    ),
    "LTX2Pipeline": Case(sounds.ltx2, {"guidance_scale": 1.0}, {"max_sequence_length": 16}),
}
"""The pipelines that were tried, with what the tiny checkpoints need; docs/models.md has a table of them."""


@pytest.mark.parametrize("pipeline", CASES)
def test_a_pipeline_has_the_bits_of_stock_and_the_seed_alone_decides(pipeline: str, tmp_path: Path) -> None:
    hold(CASES[pipeline], tmp_path)


def test_nearly_all_pipelines_of_diffusers_have_a_family() -> None:
    refused = []
    for pipeline in pipeline_classes():
        try:
            generic_family(pipeline)
        except UnsupportedPipeline:
            refused.append(pipeline)
    assert len(pipeline_classes()) - len(refused) > 200
    assert len(refused) < 50


def test_sound_is_that_of_stock(tmp_path: Path) -> None:
    case = CASES["LTX2Pipeline"]
    checkpoint = save(case, tmp_path)
    request = request_of(checkpoint, case, seed=5)
    settings = SETTINGS.model_copy(update={"pipeline_arguments": dict(case.arguments)})
    rendered = load(checkpoint.pipeline_class, tmp_path, settings, "cpu").render([request], [{}])
    assert rendered.audio is not None
    theirs = call_stock(tmp_path, case, request, {}).audio[0]
    assert rendered.audio_rate == 16000
    assert rendered.audio[0].std() > 0
    assert torch.equal(rendered.audio[0], theirs.float().cpu())


def test_the_documentation_has_the_pipelines_that_are_tried() -> None:
    table = (ROOT / "docs" / "models.md").read_text().partition("## Pipelines that were tried")[2]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*)", table, re.MULTILINE))
    assert rows.keys() == CASES.keys()
    for pipeline, words in rows.items():
        found = signature(pipeline)
        assert found is not None
        assert set(re.findall(r"`(\w+)`", words)) == found.inputs.keys(), pipeline
