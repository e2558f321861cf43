"""The world of coloured shapes: its scorer on drawings of known contents, and its trainings, a few steps long."""

import random
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, UniPCMultistepScheduler, WanImageToVideoPipeline

from benchmarks import image_to_video
from benchmarks.adherence import ARGUMENTS, render
from shapes import sana, sana_sprint, video_autoencoder, wan, wan_i2v
from shapes.drawing import draw, random_layout
from shapes.scenes import (
    COLOURS,
    MOTIONS,
    RELATIONS,
    SHAPES,
    Scene,
    caption,
    held_out_scenes,
    random_clip,
    random_picture,
    training_scenes,
)
from shapes.scorer import compare
from shapes.text import make_tokenizer
from shapes.training import Training, make_examples


def drawn(scenes: list[Scene], num_frames: int, side: int) -> np.ndarray:
    pictures = draw(random_layout(scenes, num_frames, torch.Generator().manual_seed(0)), side)
    return ((pictures / 2 + 0.5) * 255).round().byte().permute(0, 2, 3, 4, 1).numpy()


WORLDS = [(random_picture, 1, 128, 120), (random_clip, 17, 64, 16)]


@pytest.mark.parametrize(("make", "num_frames", "side", "num_scenes"), WORLDS)
def test_scorer_sees_what_was_drawn(make: object, num_frames: int, side: int, num_scenes: int) -> None:
    scenes = held_out_scenes(make, num_scenes)
    for scene, frames in zip(scenes, drawn(scenes, num_frames, side), strict=True):
        verdict = compare(scene, frames)
        assert all(verdict.values()), (caption(scene), verdict)


def changed(scene: Scene) -> dict[str, Scene]:
    """The scene with one attribute changed, by attribute."""

    def other(names: object, *taken: str | None) -> str:
        return next(name for name in names if name not in taken)

    first = scene.things[0]
    colours = [scene.background, *(thing.colour for thing in scene.things)]

    def with_thing(**changes: str) -> Scene:
        return replace(scene, things=(replace(first, **changes), *scene.things[1:]))

    scenes = {
        "shape": with_thing(shape=other(SHAPES, *(thing.shape for thing in scene.things))),
        "colour": with_thing(colour=other(COLOURS, *colours)),
        "background": replace(scene, background=other(COLOURS, *colours)),
    }
    if scene.motion:
        scenes["motion"] = replace(scene, motion=other(MOTIONS, scene.motion))
    if scene.relation:
        scenes["relation"] = replace(scene, relation=other(RELATIONS, scene.relation))
    if first.size:
        scenes["size"] = with_thing(size=other(("small", "large"), first.size))
    if first.position:
        scenes["position"] = with_thing(position=other(("on the left", "on the right"), first.position))
    return scenes


@pytest.mark.parametrize(("make", "num_frames", "side"), [world[:3] for world in WORLDS])
def test_scorer_sees_what_is_wrong(make: object, num_frames: int, side: int) -> None:
    scenes = held_out_scenes(make, 8, seed=1)
    for scene, frames in zip(scenes, drawn(scenes, num_frames, side), strict=True):
        for attribute, wrong in changed(scene).items():
            verdict = compare(wrong, frames)
            assert [name for name, is_right in verdict.items() if not is_right] == [attribute], caption(wrong)


def test_a_blank_picture_or_clip_shows_nothing() -> None:
    picture, clip = held_out_scenes(random_picture, 1)[0], held_out_scenes(random_clip, 1)[0]
    assert not compare(picture, np.full((1, 128, 128, 3), 250, np.uint8))["number"]
    assert not any(compare(clip, np.full((17, 64, 64, 3), 250, np.uint8)).values())


def test_held_out_combinations_are_never_trained_on() -> None:
    scenes = training_scenes(random_picture, seed=3)
    trained = {caption(next(scenes)) for _ in range(2000)}
    assert not trained & {caption(scene) for scene in held_out_scenes(random_picture, 500)}
    assert len(held_out_scenes(random_clip, 500)) == 500, "fewer than 500 exist; they come again"


def test_a_mirrored_wording_is_held_out_with_its_scene() -> None:
    generator = random.Random(5)
    pairs = [scene for scene in (random_picture(generator) for _ in range(200)) if scene.relation]
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    for scene in pairs:
        mirrored = replace(scene, things=scene.things[::-1], relation=opposite[scene.relation])
        assert mirrored.is_held_out == scene.is_held_out
    assert {scene.is_held_out for scene in pairs} == {True, False}


def test_whole_clips_equal_the_stock_autoencoder() -> None:
    torch.manual_seed(0)
    vae = wan.make_autoencoder().double()
    clips = torch.randn(1, 3, 17, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(video_autoencoder.encode(vae, clips), vae.encode(clips).latent_dist.parameters)
        latents = torch.randn(1, 8, 5, 4, 4, dtype=torch.float64)
        stock = vae.decode(latents).sample
        torch.testing.assert_close(video_autoencoder.decode(vae, latents).clamp(-1, 1), stock)


def train(module: ModuleType, monkeypatch: pytest.MonkeyPatch, output: Path, *arguments: str) -> None:
    few = ["--denoiser-steps", "2", "--batch-size", "4", "--num-scenes", "16", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", ["train", "--output", str(output), *few, *arguments])
    module.main()


def test_trainings_end_in_checkpoints_that_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(sana, monkeypatch, tmp_path / "sana", "--autoencoder-steps", "2")
    train(sana_sprint, monkeypatch, tmp_path / "sprint", "--teacher", str(tmp_path / "sana"))
    train(wan, monkeypatch, tmp_path / "wan", "--autoencoder-steps", "6")
    train(wan_i2v, monkeypatch, tmp_path / "wan-i2v", "--teacher", str(tmp_path / "wan"))
    for name in ("sana", "sprint", "wan", "wan-i2v"):
        pipeline = DiffusionPipeline.from_pretrained(tmp_path / name)
        assert pipeline.vae.dtype == torch.float32


JUDGED = ("begins with the picture", "moves as told", "both")


def test_a_picture_is_seen_in_training_as_the_stock_pipeline_shows_it() -> None:
    torch.manual_seed(0)
    vae = wan.make_autoencoder()
    pipeline = WanImageToVideoPipeline(None, None, vae, UniPCMultistepScheduler())
    training = Training(Path(), torch.device("cpu"), denoiser_steps=0, batch_size=1, num_scenes=1, seed=0)
    examples = make_examples(training, random_clip, wan.NUM_FRAMES, make_tokenizer(512), wan_i2v.random_instruction)
    picture = examples.draw(torch.tensor([0]), wan.SIDE)[:, :, 0]
    sizes = (1, vae.config.z_dim, wan.SIDE, wan.SIDE, wan.NUM_FRAMES)
    with torch.no_grad():
        stock = pipeline.prepare_latents(picture, *sizes, torch.float32, "cpu", latents=torch.empty(0))[1]
    latents = wan.encode_all(training, vae, examples, 1, num_kept=1)
    torch.testing.assert_close(wan_i2v.with_mask(latents.float()), stock, rtol=0.05, atol=0.05)


def test_clips_of_a_picture_are_judged_by_their_start_and_motion() -> None:
    scenes, pictures = image_to_video.held_out_pictures(8)
    clips = list(drawn(scenes, wan.NUM_FRAMES, wan.SIDE))
    assert image_to_video.judge(scenes, pictures, clips) == dict.fromkeys(JUDGED, 1.0)
    still = [np.stack([picture] * wan.NUM_FRAMES) for picture in pictures]
    assert list(image_to_video.judge(scenes, pictures, still).values()) == [1.0, 0.0, 0.0]
    others = [replace(scene, motion=next(name for name in MOTIONS if name != scene.motion)) for scene in scenes]
    assert list(image_to_video.judge(others, pictures[::-1], clips).values()) == [0.0, 0.0, 0.0]


def test_an_expert_renders_as_before_until_it_has_learnt_to_see_pictures() -> None:
    torch.manual_seed(0)
    expert = wan.make_expert()
    latents, prompt = torch.randn(1, 8, 2, 4, 4), torch.randn(1, 512, 96)
    given = {"timestep": torch.tensor([500]), "encoder_hidden_states": prompt, "return_dict": False}
    with torch.no_grad():
        before = expert(hidden_states=latents, **given)[0]
        seen = torch.cat([latents, torch.randn(1, 12, 2, 4, 4)], 1)
        torch.testing.assert_close(wan_i2v.with_picture(expert)(hidden_states=seen, **given)[0], before)


CHECKPOINTS = {"sana-shapes": random_picture, "sana-sprint-shapes": random_picture, "wan-shapes": random_clip}


@pytest.fixture(scope="module", params=CHECKPOINTS)
def pipeline(request: pytest.FixtureRequest, checkpoints: Path) -> DiffusionPipeline:
    pipeline = DiffusionPipeline.from_pretrained(checkpoints / request.param)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_checkpoints_draw_what_the_prompt_says(pipeline: DiffusionPipeline) -> None:
    scenes = held_out_scenes(CHECKPOINTS[Path(pipeline.name_or_path).name], 12)
    drawings = render(pipeline, [caption(scene) for scene in scenes], 12, **ARGUMENTS[type(pipeline).__name__])
    verdicts = [compare(scene, drawing) for scene, drawing in zip(scenes, drawings, strict=True)]
    assert sum(all(verdict.values()) for verdict in verdicts) >= 10, verdicts


def test_checkpoints_draw_something_for_any_prompt(pipeline: DiffusionPipeline) -> None:
    prompts = ["", "красный круг", "一个红色的圆", "دائرة حمراء", "🟥 \x00 \n", "a red circle " * 154]
    for drawing in render(pipeline, prompts, len(prompts), num_inference_steps=2):
        assert drawing.std() > 1


def test_experts_see_short_prompts_as_padded_ones() -> None:
    torch.manual_seed(0)
    expert = wan.make_expert()
    latents, prompts = torch.randn(1, 8, 5, 8, 8), torch.randn(1, 11, 96)
    prompts[0, 7:] = 0

    def predict(num_tokens: int) -> torch.Tensor:
        padded = torch.nn.functional.pad(prompts, (0, 0, 0, num_tokens - 11))
        return expert(latents, torch.tensor([500.0]), padded, return_dict=False)[0]

    with torch.no_grad():
        stock = predict(512)
        for block in expert.blocks:
            block.attn2.set_processor(wan.ShortPromptProcessor(512 - 11))
        torch.testing.assert_close(predict(12), stock, rtol=1e-4, atol=1e-5)
