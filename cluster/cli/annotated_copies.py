"""Copies of photos with the faces drawn, for `rayface detect --annotate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from actors.drawing import draw_faces, is_drawn, write_jpeg
from actors.errors import DetectorFault, ImageFault
from actors.faces import Detected, Face, Outcome
from actors.images import Limits, encoded_bytes
from actors.sole_worker import SoleWorker
from cluster.cli.folder_walk import Photo
from cluster.cli.printable import printable
from cluster.errors import ConfigurationError
from cluster.settings import Settings

#: Of a copy; a larger photo gets a smaller copy. Drawing takes two copies of its pixels in memory, and no
#: side of a JPEG is longer.
_MAX_PIXELS = 50_000_000
_MAX_SIDE = 65_000


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
            scale, shape = _size_of_copy(outcome)
            encoded = encoded_bytes(photo.path, self._limits)
            whole = self._decoder.prepare(encoded, (shape,), self._limits, 1.0)
            faces = [_scaled(face, scale) for face in outcome.faces]
            write_jpeg(self._name(photo), draw_faces(whole.pixels, faces))
        except (OSError, ImageFault, DetectorFault) as error:
            return f"There is no annotated copy of {printable(photo.path)}: {error}"
        return ""

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


def _size_of_copy(outcome: Detected) -> tuple[float, tuple[int, int]]:
    """By how much a copy is smaller than its photo, and its height and width in pixels."""
    width, height = outcome.width, outcome.height
    scale = min(1.0, (_MAX_PIXELS / (width * height)) ** 0.5, _MAX_SIDE / max(width, height))
    return scale, (max(1, round(height * scale)), max(1, round(width * scale)))


def _scaled(face: Face, scale: float) -> Face:
    x1, y1, x2, y2 = (value * scale for value in face.box)
    right_eye, left_eye, nose, right, left = ((x * scale, y * scale) for x, y in face.landmarks)
    return replace(face, box=(x1, y1, x2, y2), landmarks=(right_eye, left_eye, nose, right, left))
