"""Pictures of every kind, and those that are none."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from rendermill.actors.media.inputs.fit import fitted
from rendermill.actors.media.inputs.images import decode_picture
from rendermill.actors.media.inputs.options import BadInput

_RED, _BLUE = (200, 30, 10), (10, 40, 180)


def _two_colours(mode="RGB"):
    """The left half of one colour, the right of another; 8 x 4 pixels."""
    image = Image.new("RGB", (8, 4), _RED)
    image.paste(_BLUE, (4, 0, 8, 4))
    return image.convert(mode)


def _file(image, kind="PNG", **options):
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def _pixels(data, is_mask=False):
    return np.asarray(decode_picture(data, is_mask).image).astype(int)


def _png(width, height, colour_type=2, body=b""):
    """A PNG file whose header may lie."""

    def part(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(body)) + part(b"IEND", b"")


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *(("RGB", kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "TGA", "JPEG2000", "AVIF")),
        *(("P", "PNG"), ("P", "GIF"), ("RGBA", "PNG"), ("CMYK", "TIFF"), ("CMYK", "JPEG"), ("LAB", "TIFF")),
    ],
)
def test_kinds_of_pictures(mode, kind):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind in ("JPEG", "AVIF") else {}
    image = _two_colours().quantize(4) if mode == "P" else _two_colours(mode) if mode != "LAB" else _lab()
    found = _pixels(_file(image, kind, **options))
    assert found.shape == (4, 8, 3)
    tolerance = 12 if kind in ("JPEG", "AVIF") or mode == "LAB" else 2
    assert np.abs(found[:, [0, -1]] - np.array([[_RED, _BLUE]])).max() <= tolerance


def _lab():
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.profileToProfile(_two_colours(), srgb, lab, outputMode="LAB")


@pytest.mark.parametrize("mode", ["1", "L", "I;16"])
def test_grey_pictures(mode):
    values = np.array([[0, 65535, 32896, 257]], np.uint16)
    image = (
        Image.fromarray(values) if mode == "I;16" else Image.fromarray((values // 257).astype(np.uint8)).convert(mode)
    )
    expected = [0, 255, 128, 1] if mode != "1" else list(np.asarray(image.convert("L"))[0])
    found = _pixels(_file(image))
    assert found.tolist() == [[[value] * 3 for value in expected]]


def test_what_is_transparent_becomes_white_and_in_masks_black():
    image = Image.fromarray(np.array([[[200, 30, 10, 255], [200, 30, 10, 0], [200, 30, 10, 128]]], np.uint8))
    found = _pixels(_file(image))
    assert found[0, :2].tolist() == [[200, 30, 10], [255, 255, 255]]
    assert np.abs(found[0, 2] - [227, 142, 132]).max() <= 1
    assert _pixels(_file(Image.new("LA", (1, 1), (255, 0))), is_mask=True).tolist() == [[0]]
    palette = Image.new("P", (1, 1))
    assert _pixels(_file(palette, transparency=0)).tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_orientation_of_exif(kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated clockwise: what was left is above
    found = _pixels(_file(_two_colours(), kind, exif=exif))
    assert found.shape == (8, 4, 3)
    assert np.abs(found[0, 0] - _RED).max() < 40
    assert np.abs(found[-1, 0] - _BLUE).max() < 40


def test_colour_profile():
    """The profile says that the primaries are swapped, as a converter to sRGB must find out."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB", 6500)).tobytes()
    assert decode_picture(_file(_two_colours(), icc_profile=lab)).notes["colour profile"].startswith("not applied")
    assert decode_picture(_file(_two_colours(), icc_profile=b"nonsense")).notes["colour profile"].startswith("not")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert decode_picture(_file(_two_colours(), icc_profile=srgb)).notes == {}
    swapped = _swapped_primaries(srgb)
    found = _pixels(_file(_two_colours("RGBA"), icc_profile=swapped))
    assert np.abs(found[0, 0] - _RED[::-1]).max() <= 3
    assert np.abs(found[0, -1] - _BLUE[::-1]).max() <= 3


def _swapped_primaries(profile):
    """Return a profile with the primaries of red and blue swapped, and another description."""
    num_tags = struct.unpack(">I", profile[128:132])[0]
    table = [bytearray(profile[132 + 12 * number : 144 + 12 * number]) for number in range(num_tags)]
    names = {bytes(entry[:4]): entry for entry in table}
    names[b"rXYZ"][:4], names[b"bXYZ"][:4] = b"bXYZ", b"rXYZ"
    swapped = profile[:132] + b"".join(table) + profile[132 + 12 * num_tags :]
    return swapped.replace("sRGB".encode("utf-16-be"), "xRGB".encode("utf-16-be")).replace(b"sRGB b", b"xRGB b")


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), colour) for colour in (_RED, _BLUE)]
    picture = decode_picture(_file(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))
    assert np.asarray(picture.image)[0, 0].tolist() == list(_RED)
    assert picture.notes == {"frame": "the first of an animation"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (_file(_two_colours())[:-30], "damaged or cut off"),
        (_file(_two_colours().resize((80, 80)), "JPEG")[:-80], "damaged or cut off"),
        (_png(8, 4), "damaged or cut off"),
        (_png(30_000, 30_000), "more than the 100000000"),
        (_png(12_000, 10_000), "more than the 100000000"),
        (_file(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), "32 bits"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG or XML file"),
        (b"\n\n<!DOCTYPE html><html>log in", "an HTML page"),
        (b'{"error": "expired"}', "JSON"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"\0\0\0\x18ftypmp42", "a video"),
        (bytes(100), "in no known format"),
    ],
)
def test_what_is_no_picture(data, words):
    with pytest.raises(BadInput, match=words):
        decode_picture(data)


def test_fit():
    image = _two_colours()
    assert fitted(image, (8, 4), "error") is image
    with pytest.raises(BadInput, match="it has 8 x 4 pixels, and the request 4 x 4"):
        fitted(image, (4, 4), "error")
    cropped, padded, stretched = (np.asarray(fitted(image, (4, 4), fit)) for fit in ("crop", "pad", "stretch"))
    assert cropped.tolist() == np.asarray(image)[:, 2:6].tolist()
    assert padded[[0, 3]].max() == 0
    assert np.abs(padded[1, 0].astype(int) - _RED).max() <= 4
    assert np.abs(stretched[:, 0].astype(int) - _RED).max() <= 4
    assert np.asarray(fitted(image.convert("L"), (4, 4), "pad")).ndim == 2
