"""A detector's lease on its device: renewed while the cluster answers and knows no newer owner."""

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
#: Times the lease. Without a lease nothing runs on the device, so this only says how long a break costs no
#: new start. A successor on this machine need not wait for it: it ends a predecessor that is not heard.
_GIVEN_UP_AFTER = 6
#: While the head is silent it is asked more often, so that its return is known at once.
_SILENT_PAUSE_S = 0.1


class LeaseKeeper:
    """Renews the lease by reading the epoch; ends the process when the device has to be given up.

    Args:
        detector: has the lease.
        read_epoch: returns the newest owner's epoch; raises an error if the cluster does not answer.
        lease_s: how many seconds the detector may run without an answer. After six times as long the process
            ends: the device is free then, and Ray or a successor begins anew.
        notes: the folder of this machine's notes; None if `rayface join` did not start this node.
        log: is told of errors that nobody foresaw; rate-limited.
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
        self._is_silent = False

    def run(self) -> None:
        """Take a step every second or more often, until the process ends."""
        every_s = min(1.0, self._lease_s / 8)
        repeat_blocking(
            self.step,
            name="Renewing the lease",
            log=self._log,
            every_s=every_s,
            # The pauses do not grow: without steps the lease would end.
            backoff=Backoff(first_s=every_s, most_s=every_s),
            wait=self._pause,
        )

    def step(self) -> None:
        """Read the newest epoch once, and act on it."""
        try:
            newest = self._read_epoch()
        except Exception:
            # Whatever the error was, the cluster did not answer. The lease's age is read after the attempt:
            # so a machine that was asleep asks once before it gives up.
            self._is_silent = True
            if self._detector.lease.age_s > _GIVEN_UP_AFTER * self._lease_s:
                self._stop("The cluster was silent for too long; this process gives up the device.")
            return
        self._is_silent = False
        if newest > self._detector.epoch:
            self._detector.lease.end("Another process owns this detector's name now.")
            self._stop("A newer owner has this detector's name; this process gives up the device.")
            return
        self._detector.keep_fresh()
        if self._notes is not None and (self._notes / DRAIN_NOTE).exists() and not self._draining:
            threading.Thread(target=self._detector.drain_from_outside, name="drain", daemon=True).start()
            self._draining = True

    def _pause(self, seconds: float) -> None:
        self._sleep(min(seconds, _SILENT_PAUSE_S) if self._is_silent else seconds)

    def _stop(self, why: str) -> None:
        # Never `exit_actor`: Ray would take that as intended and would not restart the detector.
        # The standard error is the actor's own log, which `ray logs` shows.
        sys.stderr.write(f"rayface: {why}\n")
        sys.stderr.flush()
        self._end(_EXIT_SUCCEEDED)
