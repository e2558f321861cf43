"""Decodes pictures with Pillow to RGB in sRGB, or to grey for masks."""

import io
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from rendermill.actors.media.inputs.options import BadInput
from rendermill.manifests.errors import one_line

_FORMATS = (
    *("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA", "ICO"),
)  # none of those that start other programs, such as EPS
"""The formats of pictures that are taken, as Pillow names them."""

MAX_PIXELS = 100_000_000
"""The largest number of pixels of a picture, checked before it is decoded: 100 megapixels take 300 MB."""

_KNOWN_BEGINNINGS = (
    ((b"<svg", b"<?xml"), "an SVG or XML file; convert it to PNG"),
    ((b"<!doctype html", b"<html", b"<head"), "an HTML page, not a picture; the server may ask for a login"),
    ((b"{", b"["), "JSON, not a picture"),
    ((b"%pdf", b"%!ps"), "a PDF or PostScript file; convert it to PNG"),
    ((b"version https://git-lfs",), "a pointer of Git LFS, not the picture itself"),
)
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


class Picture(NamedTuple):
    """A decoded picture.

    Attributes:
        image: upright; of mode RGB, or L for a mask.
        notes: what a reader of the record should know, by key: a colour profile that cannot be applied, for example.
    """

    image: Image.Image
    notes: dict[str, str]


def decode_picture(data: bytes, is_mask: bool = False) -> Picture:
    """Decode a picture.

    The orientation of EXIF is applied. Pictures are converted to sRGB by their colour profile, if they have one, and
    what is transparent becomes white. Masks are grey without conversion, and what is transparent becomes black, which
    keeps the picture beneath. 16 bits are rounded to 8. Of an animated picture the first frame is taken.

    Raises:
        BadInput: it is no picture of a known format, damaged, cut off, or too large.
    """
    image = _opened(data)
    notes = {}
    if getattr(image, "is_animated", False):
        notes["frame"] = "the first of an animation"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's advice is for programmers
            image.load()
            profile = image.info.get("icc_profile")
            image = _upright(_in_8_bits(image))
    except BadInput:
        raise
    except Exception as error:  # each of Pillow's decoders raises errors of its own kind
        raise BadInput(f"the picture is damaged or cut off: {one_line(error)}") from error
    if is_mask:
        return Picture(_over(image, "black").convert("L"), notes)
    image, problem = _in_srgb(image, profile)
    if problem:
        notes["colour profile"] = problem
    return Picture(_over(image, "white").convert("RGB"), notes)


def _opened(data: bytes) -> Image.Image:
    """Read a picture's header, and check its size."""
    if not data:
        raise BadInput("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise BadInput(f"it is {description(data)}") from error
    except Image.DecompressionBombError as error:
        raise BadInput(f"the picture has more than the {MAX_PIXELS} pixels that are taken") from error
    except Exception as error:
        raise BadInput(f"the picture is damaged or cut off: {one_line(error)}") from error
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width} x {image.height}"
        raise BadInput(f"the picture says that it has {size} pixels, more than the {MAX_PIXELS} that are taken")
    return image


def description(data: bytes) -> str:
    """Return in words what a file is that no decoder knows."""
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginnings, words in _KNOWN_BEGINNINGS:
        if start.startswith(beginnings):
            return words
    if data[4:8] == b"ftyp" or data[:4] == b"\x1aE\xdf\xa3":
        return "a video (or a format of pictures that is not known), where a picture is expected"
    return "in no known format of pictures"


def _in_8_bits(image: Image.Image) -> Image.Image:
    """Return a picture of mode L, LA, RGB, RGBA, CMYK, YCbCr, LAB or HSV."""
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        return _with_exif(Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8), "L"), image)
    if image.mode in ("I", "F"):
        raise BadInput("the picture has values of 32 bits, whose white is not known; convert it to 8 or 16 bits")
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    if image.mode in ("La", "RGBa"):
        return image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if "transparency" in image.info and image.mode in ("L", "RGB"):
        return image.convert({"L": "LA", "RGB": "RGBA"}[image.mode])
    return image


def _with_exif(image: Image.Image, original: Image.Image) -> Image.Image:
    if "exif" in original.info:
        image.info["exif"] = original.info["exif"]
    return image


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image)


def _in_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str | None]:
    """Return a picture in sRGB, and what is wrong with its profile, if that cannot be applied."""
    if not profile:
        return image, None
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    colours = image.convert(image.mode.removesuffix("A")) if alpha is not None else image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if ImageCms.getProfileDescription(source).startswith("sRGB"):
            return image, None
        converted = ImageCms.profileToProfile(colours, source, _SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        return image, f"not applied: {one_line(error)}"
    assert converted is not None
    if alpha is not None:
        converted.putalpha(alpha)
    return converted, None


def _over(image: Image.Image, colour: str) -> Image.Image:
    """Return a picture with what is transparent in another colour."""
    if image.mode not in ("LA", "RGBA"):
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, colour), image.convert("RGBA"))
