"""What an existing backend would call: one object for its whole life, safe from every thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from actors.faces import Health, Outcome
from cluster import BlockingFaceClient, ClientStatus, Settings


class FaceService:
    """Faces for a photo library.

    Made when the backend starts and closed when it ends. It is there at once, whether there is a cluster or
    not, and outlives every cluster that comes and goes; what is missing meanwhile stands on each outcome.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._client = BlockingFaceClient(settings, wait=False)

    def faces_of(self, photo: bytes, deadline_s: float | None = None) -> Outcome:
        """The outcome for one uploaded photo, while a person waits."""
        return self._client.detect([photo], deadline_s=deadline_s)[0]

    def scan(self, photos: Sequence[Path]) -> Iterator[tuple[Path, Outcome]]:
        """Each photo of a library with its outcome, in order; waits while there is no detector."""
        return zip(photos, self._client.stream(photos), strict=True)

    def health(self) -> Health:
        """How the detector is.

        Raises:
            DetectorNotReady: there is none, or it does not answer; says why.
        """
        return self._client.health()

    def status(self) -> ClientStatus:
        """How the way to the detectors is."""
        return self._client.status()

    def close(self) -> None:
        """Leave the cluster."""
        self._client.close()
