"""Lays out what the demo drew of its captions of shapes: `python -m examples.make_picture OUTPUT PICTURE.png`."""

import sys
import textwrap
from pathlib import Path

import av
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

_TILE, _GAP, _NUM_COLUMNS = 128, 14, 6
_NUM_IMAGES, _NUM_CLIPS = 12, 6
_FRAMES = (0, 3, 6, 10, 13, 16)
_CLIP_WIDTH = 3 * _TILE + 2 * _GAP
"""A clip is as wide as three images."""


def _clip(path: Path) -> Image.Image:
    """Some of a clip's frames, side by side."""
    with av.open(str(path)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    side = (_CLIP_WIDTH + 4) // len(_FRAMES) - 4
    strip = Image.new("RGB", (_CLIP_WIDTH, side), "white")
    for index, frame in enumerate(_FRAMES):
        strip.paste(frames[frame].resize((side, side), Image.Resampling.LANCZOS), (index * (side + 4), 0))
    return strip


def main(output: str, picture: str) -> None:
    """Read the output's records and media, and write the picture."""
    records = sorted(pq.read_table(Path(output, "metadata")).to_pylist(), key=lambda record: record["id"])
    shapes = [record for record in records if record["id"].startswith("shapes-")]
    images = [record for record in shapes if record["model"] == "sana"][:_NUM_IMAGES]
    clips = [record for record in shapes if record["model"] == "wan"][:_NUM_CLIPS]
    tiles = [(Image.open(Path(output, record["path"])), record["prompt"]) for record in images]
    tiles += [(_clip(Path(output, record["path"])), record["prompt"]) for record in clips]

    sheet = Image.new("RGB", (_NUM_COLUMNS * (_TILE + _GAP) + _GAP, 2000), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    x = y = bottom = _GAP
    for tile, prompt in tiles:
        if x + tile.width > sheet.width:
            x, y = _GAP, bottom
        sheet.paste(tile, (x, y))
        lines = textwrap.wrap(prompt, tile.width // 6)
        pen.multiline_text((x, y + tile.height + 3), "\n".join(lines), "black", font, spacing=2)
        bottom = y + tile.height + 3 + 14 * len(lines) + _GAP
        x += tile.width + _GAP
    sheet.crop((0, 0, sheet.width, bottom)).quantize(256).save(picture, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
