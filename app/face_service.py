"""What an existing backend would call: one object for its whole life, safe from every thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from actors.faces import Health, Outcome
from cluster import BlockingFaceClient, Settings


class FaceService:
    """Faces for a photo library.

    Made when the backend starts (it joins the cluster, or starts an embedded one) and closed when it ends.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._client = BlockingFaceClient(settings)

    def faces_of(self, photo: bytes, deadline_s: float | None = None) -> Outcome:
        """The outcome for one uploaded photo, while a person waits."""
        return self._client.detect([photo], deadline_s=deadline_s)[0]

    def scan(self, photos: Sequence[Path]) -> Iterator[tuple[Path, Outcome]]:
        """Each photo of a library with its outcome, in order, with bounded memory."""
        return zip(photos, self._stream(photos), strict=True)

    def health(self) -> Health:
        """How the detector is."""
        return self._client.health()

    def close(self) -> None:
        """Leave the cluster."""
        self._client.close()

    def _stream(self, photos: Iterable[Path]) -> Iterator[Outcome]:
        return self._client.stream(photos)
