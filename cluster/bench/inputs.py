"""The images that a bench sends: photos, prepared pixels, or photos that are made up."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np

from actors import images as photos
from actors.errors import ImageFault
from actors.images import ImageSource, Limits
from cluster.errors import ConfigurationError

#: Different images that are made or kept in memory. Too few would always be in the processor's caches.
MAX_MADE = 16
_MAX_SIZE = 4096
#: Pixels of the rough shapes in a made-up photo, and the strength of its grain.
_ROUGH = 48
_GRAIN = 4.0
_QUALITY = 90


def made_up_photos(megapixels: float, num: int = 4) -> list[ImageSource]:
    """Make JPEGs in memory: soft shapes with grain like a camera's, 4:3, quality 90, without a face.

    Args:
        megapixels: the size of each, in millions of pixels.
        num: how many different ones.
    """
    from PIL import Image

    random = np.random.default_rng(1)
    height = max(1, round((megapixels * 1e6 * 3 / 4) ** 0.5))
    width = max(1, round(height * 4 / 3))
    grain = random.normal(0, _GRAIN, (height, width, 1)).astype(np.int16)
    made: list[ImageSource] = []
    for _ in range(num):
        rough = random.integers(0, 256, (_ROUGH * 3 // 4, _ROUGH, 3), dtype=np.uint8)
        soft = np.asarray(Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC))
        grainy = np.clip(soft.astype(np.int16) + grain, 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(grainy).save(file, "JPEG", quality=_QUALITY)
        made.append(file.getvalue())
    return made


def made_up_pixels(size: int) -> list[ImageSource]:
    """Make `MAX_MADE` squares of random pixels, uint8[size, size, 3]."""
    random = np.random.default_rng(1)
    return [random.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(MAX_MADE)]


def pixels_of(
    paths: Sequence[str], size: int, limits: Limits, warn: Callable[[str], None]
) -> list[ImageSource]:
    """Decode and shrink the first `MAX_MADE` photos that can be read.

    Args:
        paths: photos.
        size: the longer side of the pixels, at most.
        limits: larger photos are refused.
        warn: is called with a sentence about each photo that is left out.

    Raises:
        ConfigurationError: none of the photos can be read.
    """

    def made(path: str) -> ImageSource | None:
        try:
            return photos.prepare(path, ((size, size),), limits, 1.0).pixels
        except ImageFault as fault:
            warn(f"{path} is left out: {fault.detail}")
            return None

    readable = (pixels for path in paths if (pixels := made(path)) is not None)
    found: list[ImageSource] = list(islice(readable, MAX_MADE))
    if not found:
        raise ConfigurationError(
            "None of the photos can be read, so there are no pixels to send. Name other photos, or none: "
            "then random pixels are sent."
        )
    return found
