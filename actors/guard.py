"""Surrounds every run on the device: the run waits for a lane, may run, is watched and is recorded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from actors.flight_recorder import FlightRecorder
from actors.priority_semaphore import PrioritySemaphore
from actors.watchdog import Watchdog


class Guard:
    """Lets `num_lanes` runs onto the device at once; each is allowed, watched and recorded.

    Args:
        num_lanes: runs on the device at once.
        may_run: called before and after each run; raises where the device is no longer ours.
        watchdog: ends the process when a run does not end; None: runs are not watched.
        recorder: records the images on the device; None: nothing is recorded.
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
        """Wait for a lane, and guard the run in the block.

        Args:
            what: what is run, in words.
            limit_s: seconds that the run may take.
            images: digests of the images; none for the golden photo, which is never at fault.
            first: whether the run goes before those that came without `first`.

        Raises:
            DetectorFault: raised by `may_run`, before the run or after it.
        """
        alone = len(images) == 1 and self.is_suspect(images[0])
        with self._lanes.taken(first=first, alone=alone):
            self._may_run()
            with self.watching(what, limit_s), self._noted(images):
                yield
            # If the process was stopped during the run, its lease may be over: the answer must not be used.
            self._may_run()

    def watching(self, what: str, limit_s: float) -> contextlib.AbstractContextManager[None]:
        """Only watch the block: for opening a session, which is no run."""
        return self._watchdog.watching(what, limit_s) if self._watchdog else contextlib.nullcontext()

    def is_suspect(self, digest: str) -> bool:
        """Whether an image must be run with nothing else on the device."""
        return self.recorder is not None and self.recorder.is_suspect(digest)

    def _noted(self, images: Sequence[str]) -> contextlib.AbstractContextManager[None]:
        return self.recorder.flight(images) if self.recorder and images else contextlib.nullcontext()
