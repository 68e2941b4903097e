"""Compares the faces found in re-encoded photos with those found in the pixels, for several JPEG qualities.

    python -m tests.benchmarks.wire_agreement [--model NAME | FILE.onnx] [FOLDER ...]

The sample photos are always compared. FOLDER holds further photos; a `labels.json` beside them may name a
size for each photo, to which it is then enlarged.

In the row `noise`, no JPEG is made: each value of the pixels is changed by -1, 0 or 1 at random. A face that
is lost there depends on a difference that nobody sees.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg

from actors import jpeg
from actors.encoded_image import QUALITY
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
#: Quality, and whether the colours keep their full size (4:4:4).
WAYS = ((95, False), (98, False), (90, True), (95, True), (97, True), (98, True), (99, True), (100, True))
#: A face is the same one if the boxes overlap so far.
SAME = 0.5


def main() -> None:
    """Print for each quality the overlaps, the faces that only one side has, the bytes and the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--model", default="centerface")
    arguments = parser.parse_args()
    own = Path(arguments.model)
    settings = (
        DetectorSettings(model_path=own) if own.suffix == ".onnx" else DetectorSettings(model=arguments.model)
    )
    model = FaceModel(ready_model(settings), OnnxSessionOpener("cpu"), settings, Guard(1))
    photos: dict[str, Iterable[Any]] = {"sample photos": sorted(PHOTOS.glob("*.jpg"))}
    photos |= {folder.name: _labelled(folder) for folder in arguments.folders}
    for name, sources in photos.items():
        ways = {f"{quality} 4:{'4:4' if full else '2:0'}": (quality, full) for quality, full in WAYS}
        compared = {way: Comparison() for way in (*ways, "noise")}
        for source in sources:
            photo = prepare(source, settings.shapes, LIMITS, settings.max_enlargement)
            expected = model.detect([photo])[0]
            for way, (quality, full) in ways.items():
                encoded, decoded = compared[way].encode(photo, quality, full)
                compared[way].add(photo, encoded, expected, model.detect([decoded])[0])
            noisy = _noisy(photo)
            compared["noise"].add(photo, 0, expected, model.detect([noisy])[0])
        print(f"{own.stem}, {name}")
        print("quality    faces  lost  new  IoU: least  1 %   mean", end="")
        print("   KB  of pixels  encode  decode")
        for way, comparison in compared.items():
            used = ways.get(way) == (QUALITY, True)
            print(f"{way:10}{comparison.row()}{'  <- used' if used else ''}", flush=True)


class Comparison:
    """Compares the faces of one way with those of the pixels."""

    def __init__(self) -> None:
        self._overlaps: list[float] = []
        self._num_lost = self._num_new = 0
        self._num_photos = self._num_bytes = self._num_pixel_bytes = 0
        self._encode_s = self._decode_s = 0.0

    def encode(self, photo: PreparedImage, quality: int, full: bool) -> tuple[int, PreparedImage]:
        """Send one photo through a JPEG. Returns the JPEG's bytes, and the photo that comes out of it."""
        begun = time.process_time()
        sampling = "444" if full else "420"
        data = bytes(simplejpeg.encode_jpeg(photo.pixels, quality, "BGR", sampling))
        made = time.process_time()
        pixels = jpeg.decode_ours(data, *photo.pixels.shape[:2])
        self._encode_s += made - begun
        self._decode_s += time.process_time() - made
        return len(data), replace(photo, pixels=pixels)

    def add(
        self, photo: PreparedImage, num_bytes: int, expected: Sequence[Face], answer: Sequence[Face]
    ) -> None:
        """Count one photo's faces: which are the same, lost and new."""
        self._num_photos += 1
        self._num_bytes += num_bytes
        self._num_pixel_bytes += photo.pixels.nbytes
        found = list(answer)
        for face in expected:
            best = max(found, key=lambda each: reference.iou(list(face.box), list(each.box)), default=None)
            overlap = 0.0 if best is None else reference.iou(list(face.box), list(best.box))
            if best is None or overlap < SAME:
                self._num_lost += 1
                continue
            found.remove(best)
            self._overlaps.append(overlap)
        self._num_new += len(found)

    def row(self) -> str:
        """The figures of all photos."""
        overlaps = np.array(self._overlaps)
        per_photo = 1000 / self._num_photos
        return (
            f"{len(overlaps) + self._num_lost:7}{self._num_lost:6}{self._num_new:5}"
            f"{overlaps.min():12.3f}{np.quantile(overlaps, 0.01):7.3f}{overlaps.mean():7.4f}"
            f"{self._num_bytes / self._num_photos / 1000:10.0f}{self._num_bytes / self._num_pixel_bytes:9.2f}"
            f"{self._encode_s * per_photo:9.1f} ms{self._decode_s * per_photo:5.1f} ms"
        )


def _noisy(photo: PreparedImage) -> PreparedImage:
    noise = np.random.default_rng(1).integers(-1, 2, photo.pixels.shape, np.int16)
    pixels = np.clip(photo.pixels + noise, 0, 255).astype(np.uint8)
    return replace(photo, pixels=pixels)


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
