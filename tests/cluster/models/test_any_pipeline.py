"""Pipelines that rendermill has no code for, through the command line: four of them in one job."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from tests.pipelines import images, videos
from tests.pipelines.equality import Case, save, stock
from tests.support.commands import Rendermill
from tests.support.requests import request_for

CASES = {
    "flux": Case(images.flux, {}, {"max_sequence_length": 48}),
    "sdxl": Case(images.sdxl, {}, {}),
    "cogvideox": Case(videos.cogvideox, {"num_frames": 9}, {"max_sequence_length": 24}),
}
INPAINT = Case(images.sdxl_inpaint, {}, {})
FIELDS = ("width", "height", "num_frames", "num_inference_steps", "guidance_scale", "negative_prompt", "fps")


def test_a_job_renders_with_any_pipelines(rendermill: Rendermill) -> None:
    for name, case in CASES.items():
        save(case, rendermill.folder / name)
        rendermill.model(name, str(rendermill.folder / name), defaults={**case.fields, **case.arguments})
    rows = [{"id": f"{name}-{row}", "prompt": "a red circle", "model": name} for name in CASES for row in range(2)]
    rows.append(
        {"id": "true-guidance", "prompt": "a cat", "model": "flux", "true_cfg_scale": 2, "negative_prompt": "x"}
    )
    rows.append({"id": "not-taken", "prompt": "a cat", "model": "sdxl", "true_cfg_scale": 2})
    rows.append({"id": "no-second-expert", "prompt": "a cat", "model": "flux", "guidance_scale_2": 2.0})
    rows.append({"id": "odd-size", "prompt": "a cat", "model": "sdxl", "width": 63})
    save(INPAINT, rendermill.folder / "inpaint")
    rendermill.model("inpaint", str(rendermill.folder / "inpaint"))
    for name in ("image", "mask_image"):
        Image.effect_noise((64, 32), 90).convert("RGB").save(rendermill.folder / f"{name}.png")
    files = {"image": "image.png", "mask_image": "mask_image.png"}
    rows.append({"id": "inpainted", "prompt": "a cat", "model": "inpaint"} | files)
    rows.append({"id": "no-such-file", "prompt": "a cat", "model": "inpaint"} | files | {"image": "nowhere.png"})
    rows.append({"id": "no-mask", "prompt": "a cat", "model": "inpaint", "image": "image.png"})
    rendermill.manifest(rows)
    first = rendermill.generate(max_failure_rate=0.5)
    assert first.status == 3, first  # as rows were rejected
    assert "8 items finished, 1 failed, 4 rejected" in first.out
    records = {record["id"]: record for record in pq.read_table(rendermill.output / "metadata").to_pylist()}
    assert records.keys() == {"true-guidance", "inpainted", *(f"{name}-{row}" for name in CASES for row in range(2))}
    for name in ("flux", "sdxl"):
        assert_stock(rendermill.folder / name, CASES[name], records[f"{name}-1"], rendermill.output)
    guided = Case(images.flux, {}, CASES["flux"].arguments | {"true_cfg_scale": 2.0})
    assert_stock(rendermill.folder / "flux", guided, records["true-guidance"], rendermill.output)
    assert records["inpainted"]["inputs"] is not None
    assert records["cogvideox-0"]["num_frames"] == 9
    assert records["cogvideox-0"]["num_tokens_cut"] is None, "unknown is not zero"
    assert records["cogvideox-0"]["path"].endswith(".mp4")

    again = rendermill.generate(max_failure_rate=0.5)
    assert again.status == 3, again
    assert pq.read_table(rendermill.output / "metadata").num_rows == 8


def assert_stock(folder: Path, case: Case, record: dict[str, object], output: Path) -> None:
    """Assert that a picture is the one that the stock pipeline gives for its record."""
    request = request_for(record["prompt"], record["seed"], **{name: record[name] for name in FIELDS})
    picture = np.asarray(Image.open(output / record["path"]))
    np.testing.assert_array_equal(picture, stock(folder, case, request, {})[0])
