"""Photos as arrays, read by OpenCV alone and not by the code that is tested."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt


def read_pixels(path: Path | str) -> npt.NDArray[np.uint8]:
    """Read a photo: [height, width, BGR] uint8. Raises ValueError where OpenCV cannot read the file."""
    pixels = cv2.imread(str(path))
    if pixels is None:
        raise ValueError(f"OpenCV reads no photo from {path}")
    return pixels.astype(np.uint8, copy=False)
