"""Photos of 12 megapixels, enlarged from the sample photos; each is cut a little differently."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tests.pixels import read_pixels

PHOTOS = Path(__file__).parents[1] / "photos"
WIDTH, HEIGHT = 4000, 3000


def write_large_photos(folder: Path, num_photos: int) -> list[Path]:
    """JPEGs of 4000 x 3000 pixels with noise like a camera's, from photos with and without faces."""
    random = np.random.default_rng(1)
    sources = [read_pixels(path) for path in sorted(PHOTOS.glob("*.jpg"))]
    grain = random.normal(0, 4, (HEIGHT, WIDTH, 1)).astype(np.int16)
    made = []
    for number in range(num_photos):
        source = sources[number % len(sources)]
        height, width = source.shape[:2]
        cut_w = min(width, height * WIDTH // HEIGHT)
        cut_h = cut_w * HEIGHT // WIDTH
        left, top = int(random.integers(width - cut_w + 1)), int(random.integers(height - cut_h + 1))
        large = cv2.resize(
            source[top : top + cut_h, left : left + cut_w], (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC
        )
        path = folder / f"{number:04}.jpg"
        noisy = np.clip(large.astype(np.int16) + grain, 0, 255).astype(np.uint8)
        cv2.imwrite(str(path), noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])
        made.append(path)
    return made
