"""Compares the faces found in re-encoded photos with those found in the pixels, for several JPEG qualities.

    python -m tests.benchmarks.wire_agreement [--model NAME] [FOLDER ...]

FOLDER holds further photos, with a `labels.json` beside them if they are to be enlarged to the size that it
gives for each. Without it, the sample photos are compared.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from actors.encoded_image import QUALITY, EncodedImage
from actors.face_model import FaceModel
from actors.faces import Face
from actors.guard import Guard
from actors.images import Limits, PreparedImage, prepare
from actors.models import ready_model
from actors.session import OnnxSessionOpener
from actors.settings import DetectorSettings
from tests import reference
from tests.benchmarks.large_photos import PHOTOS
from tests.pixels import read_pixels

LIMITS = Limits(10**9, 10**9)
QUALITIES = (80, 85, 90, 92, 95, 97, 98, 99)
#: A face is the same one if the boxes overlap so far.
SAME = 0.5


def main() -> None:
    """Print for each quality the overlaps, the faces that only one side has, the bytes and the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--model", default="centerface")
    arguments = parser.parse_args()
    settings = DetectorSettings(model=arguments.model)
    model = FaceModel(ready_model(settings), OnnxSessionOpener("cpu"), settings, Guard(1))
    photos: dict[str, Iterable[Any]] = {"sample photos": sorted(PHOTOS.glob("*.jpg"))}
    photos |= {folder.name: _labelled(folder) for folder in arguments.folders}
    for name, sources in photos.items():
        compared = {quality: Comparison() for quality in QUALITIES}
        for source in sources:
            photo = prepare(source, settings.shapes, LIMITS, settings.max_enlargement)
            expected = model.detect([photo])[0]
            for quality, comparison in compared.items():
                comparison.add(photo, expected, quality, model)
        print(f"{arguments.model}, {name}")
        print("quality  faces  lost  new  IoU: least  1 %   mean   least of score > 0.6", end="")
        print("   KB  of pixels  encode  decode")
        for quality, comparison in compared.items():
            print(f"{quality:7}{comparison.row()}{'  <- used' if quality == QUALITY else ''}")


class Comparison:
    """The faces of one quality beside those of the pixels."""

    def __init__(self) -> None:
        self._overlaps: list[float] = []
        self._scores: list[float] = []
        self._num_lost = self._num_new = self._num_photos = self._num_bytes = self._num_pixel_bytes = 0
        self._encode_s = self._decode_s = 0.0

    def add(self, photo: PreparedImage, expected: Sequence[Face], quality: int, model: FaceModel) -> None:
        """Compare one photo."""
        begun = time.process_time()
        encoded = EncodedImage.of(photo, quality)
        made = time.process_time()
        decoded = encoded.decoded()
        self._encode_s += made - begun
        self._decode_s += time.process_time() - made
        self._num_photos += 1
        self._num_bytes += len(encoded.data)
        self._num_pixel_bytes += photo.pixels.nbytes
        found = list(model.detect([decoded])[0])
        for face in expected:
            best = max(found, key=lambda each: reference.iou(list(face.box), list(each.box)), default=None)
            overlap = 0.0 if best is None else reference.iou(list(face.box), list(best.box))
            if best is None or overlap < SAME:
                self._num_lost += 1
                continue
            found.remove(best)
            self._overlaps.append(overlap)
            self._scores.append(face.score)
        self._num_new += len(found)

    def row(self) -> str:
        """The figures of all photos."""
        overlaps, scores = np.array(self._overlaps), np.array(self._scores)
        sure = overlaps[scores > 0.6]
        per_photo = 1000 / self._num_photos
        return (
            f"{len(overlaps) + self._num_lost:7}{self._num_lost:6}{self._num_new:5}{overlaps.min():12.3f}"
            f"{np.quantile(overlaps, 0.01):7.3f}{overlaps.mean():7.4f}{sure.min():20.3f}"
            f"{self._num_bytes / self._num_photos / 1000:10.0f}{self._num_bytes / self._num_pixel_bytes:9.2f}"
            f"{self._encode_s * per_photo:9.1f} ms{self._decode_s * per_photo:5.1f} ms"
        )


def _labelled(folder: Path) -> Iterator[Any]:
    labels = folder / "labels.json"
    sizes = (
        {each["image"]: each["size"] for each in json.loads(labels.read_text())} if labels.exists() else {}
    )
    for path in sorted(folder.glob("*.jpg")):
        pixels = read_pixels(path)
        size = sizes.get(path.name)
        yield cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC) if size else pixels


if __name__ == "__main__":
    main()
