"""A backend that streams small pixels over a link: `python -m … NUM_IMAGES`.

It prints images a second, faces found, how photos travelled at the end, and the link's speed in Mbit/s (0 if
unknown). The pixels are those of the sample photos, prepared before, so that only the link is measured.
"""

from __future__ import annotations

import sys
import time

from actors.images import Limits, prepare
from cluster import BlockingFaceClient, Detected, load_settings
from tests.conftest import PHOTOS

#: Images before those that are counted: `auto` measures the link by them.
NUM_FIRST = 64


def main(num_images: int) -> None:
    """Stream so many images, and print the figures."""
    settings = load_settings()
    limits, shapes = Limits(10**9, 10**9), settings.detector.shapes
    small = [prepare(path, shapes, limits, 2.0).pixels for path in sorted(PHOTOS.glob("*.jpg"))]
    photos = [small[number % len(small)] for number in range(num_images)]
    with BlockingFaceClient(settings) as client:
        first = list(client.stream(photos[:NUM_FIRST]))
        begun = time.monotonic()
        outcomes = list(client.stream(photos))
        took_s = time.monotonic() - begun
        (detector,) = client.status().detectors
    wrong = [each for each in [*first, *outcomes] if not isinstance(each, Detected)]
    if wrong:
        raise SystemExit(f"{len(wrong)} images were not searched; the first: {wrong[0]}")
    num_faces = sum(len(each.faces) for each in outcomes if isinstance(each, Detected))
    print(f"{num_images / took_s:.2f} {num_faces} {detector.wire} {detector.link_mbit_s or 0:.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
