"""Copies of photos with the faces drawn, for `rayface detect --annotate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from actors.drawing import draw_faces, is_drawn, write_jpeg
from actors.errors import DetectorFault, ImageFault
from actors.faces import Detected, Face, Outcome, Rejection
from actors.images import Limits, Pixels, encoded_bytes
from actors.sole_worker import SoleWorker
from cluster.cli.folder_walk import Photo
from cluster.cli.printable import printable
from cluster.errors import ConfigurationError
from cluster.settings import Settings

#: Of a copy; a larger photo gets a smaller copy. Drawing takes two copies of its pixels in memory, and no
#: side of a JPEG is longer.
_MAX_PIXELS = 50_000_000
_MAX_SIDE = 65_000
_SMALLER = 0.2


class AnnotatedCopies:
    """Writes copies with the faces drawn into one folder, under names that do not collide.

    A file that is no such copy is never written over: the folder may hold photos too.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder = folder
        self._limits = Limits.of(settings.detector)
        self._decoder = SoleWorker()
        self._taken: set[Path] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"--annotate cannot use {printable(str(folder))}: {error.strerror}. Name a folder that you "
                "can write to."
            ) from error

    def draw(self, photo: Photo, outcome: Outcome) -> str:
        """Write the copy of one photo; returns what went wrong in a sentence, or ""."""
        if not isinstance(outcome, Detected):
            return ""
        try:
            encoded = encoded_bytes(photo.path, self._limits)
            try:
                drawn = self._drawn(encoded, outcome, 1.0)
            except ImageFault as fault:
                if fault.reason is not Rejection.TOO_COSTLY:
                    raise
                # A large picture is shrunk while it is decoded, if it becomes small enough.
                drawn = self._drawn(encoded, outcome, _SMALLER)
            write_jpeg(self._name(photo), drawn)
        except (OSError, ImageFault, DetectorFault) as error:
            return f"There is no annotated copy of {printable(photo.path)}: {error}"
        return ""

    def _drawn(self, encoded: bytes, outcome: Detected, most: float) -> Pixels:
        """The photo with its faces, uint8[height, width, 3] in BGR order; its sides at most `most` times."""
        scale, shape = _size_of_copy(outcome, most)
        whole = self._decoder.prepare(encoded, (shape,), self._limits, 1.0)
        return draw_faces(whole.pixels, [_scaled(face, scale) for face in outcome.faces])

    def close(self) -> None:
        """End the process that decodes costly photos."""
        self._decoder.close()

    def _name(self, photo: Photo) -> Path:
        name = self._folder / photo.inside
        if name.suffix.lower() not in (".jpg", ".jpeg"):
            name = name.with_name(name.name + ".jpg")
        original, number = name, 1
        while name in self._taken or (name.exists() and not is_drawn(name)):
            number += 1
            name = original.with_stem(f"{original.stem}-{number}")
        self._taken.add(name)
        return name


def _size_of_copy(outcome: Detected, most: float) -> tuple[float, tuple[int, int]]:
    """By how much a copy is smaller than its photo, and its height and width in pixels."""
    width, height = outcome.width, outcome.height
    scale = min(most, (_MAX_PIXELS / (width * height)) ** 0.5, _MAX_SIDE / max(width, height))
    return scale, (max(1, round(height * scale)), max(1, round(width * scale)))


def _scaled(face: Face, scale: float) -> Face:
    x1, y1, x2, y2 = (value * scale for value in face.box)
    right_eye, left_eye, nose, right, left = ((x * scale, y * scale) for x, y in face.landmarks)
    return replace(face, box=(x1, y1, x2, y2), landmarks=(right_eye, left_eye, nose, right, left))
