"""Gives inputs the size of the output: in 8 bits, by Pillow, so that the result is the same on every machine."""

from PIL import Image, ImageOps

from rendermill.actors.media.inputs.options import BadInput, Fit


def fitted(image: Image.Image, size: tuple[int, int], fit: Fit) -> Image.Image:
    """Return a picture in another size. Pictures are resampled by Lanczos, masks (mode L) by bilinear interpolation.

    Args:
        size: width and height.
        fit: `crop`: scaled to cover the size, and cut at the centre; `pad`: scaled to lie within it, with black
            around; `stretch`: scaled without keeping proportions; `error`: it must have the size already.

    Raises:
        BadInput: it has another size, and `fit` is `error`.
    """
    if image.size == size:
        return image
    method = Image.Resampling.BILINEAR if image.mode == "L" else Image.Resampling.LANCZOS
    if fit == "crop":
        return ImageOps.fit(image, size, method)
    if fit == "pad":
        return ImageOps.pad(image, size, method, color=0 if image.mode == "L" else (0, 0, 0))
    if fit == "stretch":
        return image.resize(size, method)
    (width, height), (wanted_width, wanted_height) = image.size, size
    raise BadInput(
        f"it has {width} x {height} pixels, and the request {wanted_width} x {wanted_height}; "
        "give it this size, or let `inputs.fit` crop, pad or stretch it"
    )
