"""The detector as Ray runs it: the plain class, with an epoch and a lease from the cluster.

Ray promises one actor by a name, but not one process: in a partition the old one lives on beside its
successor, because its machine does not know yet that it was given up. So each life takes an epoch, a number
greater than every earlier owner's, from the cluster's key-value store, and reads it again and again: a
greater one means that it has been succeeded; silence for longer than the lease, that it may have been.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from actors.device import Device
from actors.face_detector import FaceDetector, new_incarnation
from actors.faces import Health, State
from actors.observer import Observers
from actors.ownership import machine_folder
from cluster.node.contract import DEVICES_VARIABLE, DRAIN_NOTE, NOTES_VARIABLE
from cluster.telemetry.event_log import DetectorLog
from cluster.telemetry.metrics import DetectorMetrics, RayMetrics
from cluster.telemetry.tracing import span_listeners

_KV_NAMESPACE = b"rayface"
_EXIT_SUCCEEDED = 75
_EXIT_GIVEN_UP = 76
_CALL_TIMEOUT_S = 2.0
_REPORT_EVERY_S = 2.0


class DetectorActor(FaceDetector):
    """A `FaceDetector` whose right to the device ends when its cluster is silent or has another owner."""

    def __init__(
        self, name: str, settings: Mapping[str, Any], tracing: Mapping[str, Any] | None = None
    ) -> None:
        import ray

        context = ray.get_runtime_context()
        store = _Store(name, context.namespace)
        lent = os.environ.get(DEVICES_VARIABLE)
        incarnation = new_incarnation()
        metrics = DetectorMetrics(name, RayMetrics())
        log = DetectorLog(name, incarnation, time.monotonic)
        super().__init__(
            name,
            settings,
            devices=[Device.parse(each) for each in lent.split(",")] if lent else None,
            cluster=f"{context.gcs_address}/{context.namespace}",
            # What was on a machine's own device is remembered across Ray's sessions, as its lock is.
            records=machine_folder() if lent else _session_folder(),
            # Never `exit_actor`: Ray takes that for a wish to end, and restarts nothing.
            end=lambda why: os._exit(_EXIT_GIVEN_UP),
            observer=Observers([metrics, log, *span_listeners(name, incarnation, tracing, log)]),
            incarnation=incarnation,
        )
        self._title = f"{name}({incarnation})"
        self.epoch = store.take_epoch(self._incarnation)
        self.lease.limit(self._settings.lease_s)
        notes = os.environ.get(NOTES_VARIABLE)
        keeper = LeaseKeeper(self, store.read_epoch, self._settings.lease_s, Path(notes) if notes else None)
        threading.Thread(target=keeper.run, name="lease", daemon=True).start()
        reporter = Reporter(self.snapshot, metrics, log, context.was_current_actor_reconstructed)
        threading.Thread(target=reporter.run, name="report", daemon=True).start()

    def __repr__(self) -> str:
        # Ray asks once, when the actor is made, and shows the answer for ever: no place for a state, and the
        # device is not chosen yet.
        return self._title


class LeaseKeeper:
    """Renews the lease by reading the epoch; ends the process when the device has to be given up.

    Args:
        detector: whose lease it is.
        read_epoch: the newest owner's epoch; raises where the cluster does not answer.
        lease_s: how long the detector may run without an answer; after twice that the process ends, so
            that Ray or a successor begins anew, and the device is free.
        notes: the machine's folder of notes, if it was joined by us.
        end: ends the process; handed in for tests.
    """

    def __init__(
        self,
        detector: FaceDetector,
        read_epoch: Callable[[], int],
        lease_s: float,
        notes: Path | None,
        end: Callable[[int], None] = os._exit,
    ) -> None:
        self._detector = detector
        self._read_epoch = read_epoch
        self._lease_s = lease_s
        self._notes = notes
        self._end = end
        self._draining = False

    def run(self) -> None:
        """Until the process ends."""
        while True:
            self.step()
            time.sleep(min(1.0, self._lease_s / 8))

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
            self._draining = True
            threading.Thread(target=self._detector.drain_from_outside, name="drain", daemon=True).start()

    def _stop(self, why: str) -> None:
        # Never `exit_actor`: Ray takes that for a wish to end, and restarts nothing.
        # stderr is the actor's own log, which `ray logs` shows.
        sys.stderr.write(f"rayface: {why}\n")
        sys.stderr.flush()
        self._end(_EXIT_SUCCEEDED)


def _session_folder() -> Path:
    # Private, but Ray is pinned and a live test looks.
    import ray._private.worker as worker

    return Path(worker._global_node.get_session_dir_path())


class Reporter:
    """Tells metrics and log every few seconds how the detector is.

    Args:
        snapshot: how it is.
        metrics: told.
        log: told.
        is_restart: whether Ray has started this detector before.
    """

    def __init__(
        self,
        snapshot: Callable[[], Health],
        metrics: DetectorMetrics,
        log: DetectorLog,
        is_restart: bool,
    ) -> None:
        self._snapshot = snapshot
        self._metrics = metrics
        self._log = log
        self._is_restart = is_restart
        self._has_told_start = False

    def run(self) -> None:
        """Until the process ends."""
        while True:
            self.step()
            time.sleep(_REPORT_EVERY_S)

    def step(self) -> None:
        """Once."""
        health = self._snapshot()
        if not self._has_told_start and health.state is not State.STARTING:
            self._has_told_start = True
            self._metrics.started(self.cause(health.last_words))
        self._metrics.report(health)
        self._log.report(health)

    def cause(self, last_words: str) -> str:
        """Why this process was started, in a word: first, hung, removed, or killed."""
        if last_words:
            return last_words.partition(":")[0]
        return "killed" if self._is_restart else "first"


class _Store:
    """The owner of each name, in the cluster's key-value store (`ray.experimental.internal_kv`)."""

    def __init__(self, name: str, namespace: str) -> None:
        from ray.experimental.internal_kv import internal_kv_get_gcs_client

        self._client = internal_kv_get_gcs_client()
        self._prefix = f"owner/{namespace}/{name}/".encode()

    def read_epoch(self) -> int:
        """Of the newest owner; 0 if there was none, as after a head that lost its memory."""
        claims = self._client.internal_kv_keys(self._prefix, _KV_NAMESPACE, timeout=_CALL_TIMEOUT_S)
        return max((int(claim.removeprefix(self._prefix)) for claim in claims), default=0)

    def take_epoch(self, incarnation: str) -> int:
        """An epoch greater than every earlier one, and nobody else's.

        Milliseconds since 1970 where nothing greater is kept, so that a head that lost its memory does not
        begin again at 1, behind owners whose answers are still on their way.
        """
        epoch = max(self.read_epoch() + 1, int(time.time() * 1000))
        # Each claim is a key of its own, which only one process can be the first to write.
        while not self._claim(epoch, incarnation):
            epoch += 1
        for claim in self._client.internal_kv_keys(self._prefix, _KV_NAMESPACE, timeout=_CALL_TIMEOUT_S):
            if int(claim.removeprefix(self._prefix)) < epoch:
                self._client.internal_kv_del(claim, False, _KV_NAMESPACE, timeout=_CALL_TIMEOUT_S)
        return epoch

    def _claim(self, epoch: int, incarnation: str) -> bool:
        key, value = self._prefix + str(epoch).encode(), incarnation.encode()
        num_added = self._client.internal_kv_put(key, value, False, _KV_NAMESPACE, timeout=_CALL_TIMEOUT_S)
        return int(num_added) == 1
