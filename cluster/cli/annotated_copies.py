"""Copies of photos with the faces drawn, for `rayface detect --annotate`."""

from __future__ import annotations

from pathlib import Path

from actors.drawing import draw_faces, write_jpeg
from actors.errors import DetectorFault, ImageFault
from actors.faces import Detected, Outcome
from actors.images import Limits, encoded_bytes
from actors.sole_worker import SoleWorker
from cluster.cli.folder_walk import Photo
from cluster.cli.printable import printable
from cluster.errors import ConfigurationError
from cluster.settings import Settings


class AnnotatedCopies:
    """Writes copies with the faces drawn into one folder, under names that do not collide."""

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
            whole = self._decoder.prepare(
                encoded_bytes(photo.path, self._limits), ((outcome.height, outcome.width),), self._limits, 1.0
            )
            write_jpeg(self._name(photo), draw_faces(whole.pixels, outcome.faces))
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
        while name in self._taken or (name.exists() and name.samefile(photo.path)):
            number += 1
            name = original.with_stem(f"{original.stem}-{number}")
        self._taken.add(name)
        return name
