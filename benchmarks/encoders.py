"""The time and size of an encoded image, by format and setting: `python -m benchmarks.encoders`.

The pictures are noise whose amplitudes fall with a power of frequency: with the first power in photographs (Field,
Relations between the statistics of natural images and the response properties of cortical cells, 1987), faster in
smoother pictures, as models render them.
"""

import argparse
import io
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

_SETTINGS: Mapping[str, list[dict[str, Any]]] = {
    "png": [{"compress_level": level} for level in (1, 2, 3, 4, 6, 9)],
    "webp": [{"method": method, "quality": 95} for method in (0, 2, 4, 6)],
    "jpeg": [{"subsampling": 0, "quality": 95}],
}
_POWERS = (1.0, 1.5, 2.0)
_NUM_REPEATS = 3


def smooth_noise(size: int, power: float, seed: int = 0) -> Image.Image:
    """A square picture, uint8 RGB, of noise with amplitudes of frequency to the -power; its channels are much alike."""
    generator = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = 1.0
    noise = np.fft.rfft2(generator.standard_normal((4, size, size))) / frequency**power
    noise[:, 0, 0] = 0.0
    planes = np.fft.irfft2(noise, s=(size, size))
    planes /= planes.std(axis=(1, 2), keepdims=True)
    pixels = 128 + 45 * (planes[0] + 0.3 * planes[1:])
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0).copy())


def main() -> None:
    """Print a line a setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024)
    size = parser.parse_args().size
    pictures = [smooth_noise(size, power) for power in _POWERS]
    print("| | " + " | ".join(f"power {power}: s of a core | MB" for power in _POWERS) + " |")
    print("|---" * (1 + 2 * len(_POWERS)) + "|")
    for image_format, settings in _SETTINGS.items():
        for setting in settings:
            cells = [f"{image_format}, " + ", ".join(f"{name} {value}" for name, value in setting.items())]
            for picture in pictures:
                seconds, data = encode(picture, image_format, setting)
                cells += [f"{seconds:.3f}", f"{len(data) / 1e6:.2f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


def encode(picture: Image.Image, image_format: str, setting: Mapping[str, Any]) -> tuple[float, bytes]:
    """The least processor seconds of a few tries, and the file."""
    seconds = []
    for _ in range(_NUM_REPEATS):
        sink, began = io.BytesIO(), time.process_time()
        picture.save(sink, image_format.upper(), **setting)
        seconds.append(time.process_time() - began)
    return min(seconds), sink.getvalue()


if __name__ == "__main__":
    main()
