"""What stands around every run on the device: its turn, the right to it, a watchdog and a record."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from actors.flight_recorder import FlightRecorder
from actors.priority_semaphore import PrioritySemaphore
from actors.watchdog import Watchdog


class Guard:
    """Lets so many runs onto the device at once, and each only while it is watched, noted and allowed.

    Args:
        num_lanes: runs at once.
        may_run: asked before each run and after it; raises where the device is no longer ours.
        watchdog: ends the process when a run never does; None: nobody watches.
        recorder: remembers what was on the device when the process died; None: nobody does.
    """

    def __init__(
        self,
        num_lanes: int,
        may_run: Callable[[], None] = lambda: None,
        watchdog: Watchdog | None = None,
        recorder: FlightRecorder | None = None,
    ) -> None:
        self._lanes = PrioritySemaphore(num_lanes)
        self._may_run = may_run
        self._watchdog = watchdog
        self.recorder = recorder

    @contextlib.contextmanager
    def run(
        self, what: str, limit_s: float, images: Sequence[str] = (), *, first: bool = False
    ) -> Iterator[None]:
        """Around one run: waits for its turn first.

        Args:
            what: it is, in words.
            limit_s: what it may take.
            images: their digests; none for the golden photo, which is never to blame.
            first: before those who came without.
        """
        alone = len(images) == 1 and self.is_suspect(images[0])
        with self._lanes.taken(first=first, alone=alone):
            self._may_run()
            with self.watching(what, limit_s), self._noted(images):
                yield
            # A process that was stopped in the middle of a run wakes up with an answer nobody may have.
            self._may_run()

    def watching(self, what: str, limit_s: float) -> contextlib.AbstractContextManager[None]:
        """The watchdog alone, for what is no run (opening a session)."""
        return self._watchdog.watching(what, limit_s) if self._watchdog else contextlib.nullcontext()

    def is_suspect(self, digest: str) -> bool:
        """Whether an image must be run with nothing else on the device."""
        return self.recorder is not None and self.recorder.is_suspect(digest)

    def _noted(self, images: Sequence[str]) -> contextlib.AbstractContextManager[None]:
        return self.recorder.flight(images) if self.recorder and images else contextlib.nullcontext()
