"""The lease of a detector on its device: renewed while its cluster is heard and has no newer owner."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from actors.face_detector import FaceDetector
from cluster.background import repeat_blocking
from cluster.backoff import Backoff
from cluster.node.contract import DRAIN_NOTE

_EXIT_SUCCEEDED = 75


class LeaseKeeper:
    """Renews the lease by reading the epoch; ends the process when the device has to be given up.

    Args:
        detector: whose lease it is.
        read_epoch: the newest owner's epoch; raises where the cluster does not answer.
        lease_s: how long the detector may run without an answer; after twice that the process ends, so
            that Ray or a successor begins anew, and the device is free.
        notes: the machine's folder of notes, if it was joined by us.
        log: told of errors that nobody foresaw; rate-limited.
        end: ends the process; handed in for tests.
        sleep: waits for so many seconds; handed in for tests.
    """

    def __init__(
        self,
        detector: FaceDetector,
        read_epoch: Callable[[], int],
        lease_s: float,
        notes: Path | None,
        log: logging.Logger,
        end: Callable[[int], None] = os._exit,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._detector = detector
        self._read_epoch = read_epoch
        self._lease_s = lease_s
        self._notes = notes
        self._log = log
        self._end = end
        self._sleep = sleep
        self._draining = False

    def run(self) -> None:
        """Take a step every so often, until the process ends."""
        every_s = min(1.0, self._lease_s / 8)
        repeat_blocking(
            self.step,
            name="Renewing the lease",
            log=self._log,
            every_s=every_s,
            # Never longer: a step that is missed for long ends the lease.
            backoff=Backoff(first_s=every_s, most_s=every_s),
            wait=self._sleep,
        )

    def step(self) -> None:
        """Ask once, and act on the answer."""
        try:
            newest = self._read_epoch()
        except Exception:
            # Whatever it was, the cluster was not heard. The age is taken after the attempt, so that a
            # machine that slept asks once before it gives up.
            if self._detector.lease.age_s > 2 * self._lease_s:
                self._stop("The cluster was silent for twice the lease; the device is given up.")
            return
        if newest > self._detector.epoch:
            self._detector.lease.end("Another process has become the owner of this detector's name.")
            self._stop("Succeeded by a newer owner; this process gives up the device.")
            return
        self._detector.keep_fresh()
        if self._notes is not None and (self._notes / DRAIN_NOTE).exists() and not self._draining:
            threading.Thread(target=self._detector.drain_from_outside, name="drain", daemon=True).start()
            self._draining = True

    def _stop(self, why: str) -> None:
        # Never `exit_actor`: Ray takes that for a wish to end, and restarts nothing.
        # stderr is the actor's own log, which `ray logs` shows.
        sys.stderr.write(f"rayface: {why}\n")
        sys.stderr.flush()
        self._end(_EXIT_SUCCEEDED)
