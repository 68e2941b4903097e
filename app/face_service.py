"""`FaceService`: the one object that a backend makes and calls, from any thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from actors.faces import Health, Outcome
from cluster import BlockingFaceClient, ClientStatus, Settings


class FaceService:
    """Finds faces for a photo library.

    The backend makes it at its start and closes it at its end. It can be called at once, whether there is a
    cluster or not, and it outlives every cluster; while none is there, each outcome says what is missing.

    Args:
        settings: of the client; None reads the settings file and the variables.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._client = BlockingFaceClient(settings, wait=False)

    def faces_of(self, photo: bytes, deadline_s: float | None = None) -> Outcome:
        """Find the faces in one encoded photo while a person waits, by `deadline_s` seconds from now."""
        return self._client.detect([photo], deadline_s=deadline_s)[0]

    def scan(self, photos: Sequence[Path]) -> Iterator[tuple[Path, Outcome]]:
        """Yield each photo of a library with its outcome, in order; waits while there is no detector."""
        return zip(photos, self._client.stream(photos), strict=True)

    def health(self) -> Health:
        """The health of the detector that would be asked next.

        Raises:
            DetectorNotReady: there is no detector, or it does not answer; says why.
        """
        return self._client.health()

    def status(self) -> ClientStatus:
        """The state of the client: its cluster, its circuits, and what its CPU answered."""
        return self._client.status()

    def close(self) -> None:
        """Leave the cluster; the service cannot be called any more."""
        self._client.close()
