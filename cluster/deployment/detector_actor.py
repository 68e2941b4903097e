"""The detector as Ray runs it: the plain class, with an epoch and a lease from the cluster.

Ray promises one actor of a name, but not one process: if the network is cut in two, the old process lives on
beside its successor, because its machine does not know yet that Ray has given it up. So each process takes an
epoch from the cluster's key-value store, a number greater than every earlier owner's, and reads the newest
epoch again and again. A greater one means that this process has a successor. Silence for longer than the
lease means that it may have one.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.device import Device
from actors.face_detector import FaceDetector
from actors.faces import Health, Outcome, State
from actors.images import Pixels
from actors.model_life import ModelLife
from actors.observer import Observers
from actors.ownership import machine_folder, new_incarnation
from cluster.background import repeat_blocking
from cluster.deployment.epochs import Epochs
from cluster.deployment.lease import LeaseKeeper
from cluster.deployment.packed import CannotShare, pack_health, pack_outcomes, unpack_call, unpack_terms
from cluster.deployment.placed import note_placed
from cluster.deployment.placing_order import PlacingOrder
from cluster.deployment.ray_metrics import RayMetrics
from cluster.deployment.restart_pause import pause_before_start
from cluster.errors import VersionSkew
from cluster.node.contract import DEVICES_VARIABLE, NOTES_VARIABLE
from cluster.protocol.identity import identity, skew_reply
from cluster.ray_internals import KeyValueStore, session_folder
from cluster.slabs import OpenSlabs
from cluster.telemetry.event_log import DetectorLog, process_log
from cluster.telemetry.metrics import DetectorMetrics
from cluster.telemetry.setup import span_listeners

_EXIT_GIVEN_UP = 76
_REPORT_EVERY_S = 2.0


class DetectorActor(FaceDetector):
    """A `FaceDetector` that gives up its device when its cluster is silent or has another owner for its name.

    Ray makes it, in a process of its own; it is at work as soon as it is made. Whatever Ray carries to it or
    from it is a number, a text, bytes or an array: Ray would pickle other values by the position of their
    fields, which another version may have elsewhere.

    Args:
        name: of the detector.
        order: a `PlacingOrder`, packed.
        tracing: given by a rayface of a time before there was a protocol only.
    """

    def __init__(self, name: str, order: object, tracing: Mapping[str, Any] | None = None) -> None:
        import ray

        placed = PlacingOrder.unpacked(order, tracing)
        context = ray.get_runtime_context()
        pause_before_start(name, KeyValueStore.joined())
        epochs = Epochs(name, context.namespace, KeyValueStore.joined())
        lent = os.environ.get(DEVICES_VARIABLE)
        incarnation = new_incarnation()
        metrics = DetectorMetrics(name, RayMetrics())
        lines = process_log()
        log = DetectorLog(name, incarnation, time.monotonic, lines)
        life = ModelLife(
            name,
            placed.settings,
            devices=[Device.parse(each) for each in lent.split(",")] if lent else None,
            cluster=f"{context.gcs_address}/{context.namespace}",
            # Records about a machine's own device outlive Ray's sessions, as the lock of the device does.
            records=machine_folder() if lent else session_folder(),
            # Never `exit_actor`: Ray would take that as intended and would not restart the detector.
            end=lambda why: os._exit(_EXIT_GIVEN_UP),
            observer=Observers([metrics, log, *span_listeners(name, incarnation, placed.tracing, log)]),
        )
        super().__init__(life, incarnation)
        self._placed_by = placed.placed_by
        self._title = f"{name}({incarnation})"
        self._open_slabs = OpenSlabs()
        self.epoch = epochs.take_epoch(incarnation)
        note_placed(KeyValueStore.joined(), context.namespace, name, life.settings.model_dump(mode="json"))
        self.lease.limit(life.settings.lease_s)
        if placed.fault is None:
            self.start()
        else:
            life.refuse(placed.fault)
        notes = os.environ.get(NOTES_VARIABLE)
        folder = Path(notes) if notes else None
        keeper = LeaseKeeper(self, epochs.read_epoch, life.settings.lease_s, folder, lines)
        threading.Thread(target=keeper.run, name="lease", daemon=True).start()
        reporter = Reporter(
            self.snapshot,
            metrics,
            log,
            lines,
            context.was_current_actor_reconstructed,
            tidy=self._open_slabs.give_up_abandoned,
            # What was made until then stays. Looking through it for garbage would stop all calls for a tenth
            # of a second, again and again.
            started=gc.freeze,
        )
        threading.Thread(target=reporter.run, name="report", daemon=True).start()

    def snapshot(self) -> Health:
        """Tell how the detector is, and who placed it."""
        return replace(super().snapshot(), placed_by=self._placed_by)

    async def answer(self, terms: bytes, head: bytes, pixels: Sequence[Pixels] = ()) -> bytes | None:
        """Do as `detect`, with photos and outcomes packed (see `packed`).

        Returns:
            The outcomes; the reply to another version if the caller has one. None if the photos lie in memory
            that this process cannot read: they must be sent.
        """
        try:
            asked = unpack_terms(terms)
            images = unpack_call(head, pixels, self._open_slabs.get)
        except VersionSkew:
            return skew_reply()
        except CannotShare:
            return None
        outcomes: Sequence[Outcome] = await self.detect(
            images, asked.priority, asked.deadline_s, asked.trace, asked.settings
        )
        return pack_outcomes(outcomes)

    async def answer_health(self, wait_s: float, tag: str) -> bytes:
        """Do as `health`; `tag` is the caller's protocol. Returns it packed, or the reply to another version.

        Another version gets its reply at once: it must not wait for the start of what it cannot use.
        """
        return pack_health(await self.health(wait_s)) if tag == identity().tag else skew_reply()

    async def answer_check(self, wait_s: float, tag: str) -> bytes:
        """Do as `check`; else as `answer_health`."""
        return pack_health(await self.check(wait_s)) if tag == identity().tag else skew_reply()

    async def answer_drain(self, tag: str) -> bytes:
        """Do as `drain`, for another version too: it replaces the detector. Returns as `answer_health`."""
        health = await self.drain()
        return pack_health(health) if tag == identity().tag else skew_reply()

    def __repr__(self) -> str:
        # Ray asks once, when the actor is made, and keeps the answer. So it has no state that may change, and
        # no device, which is not chosen yet.
        return self._title


class Reporter:
    """Writes every few seconds into the metrics and the log how the detector is.

    Args:
        snapshot: returns how the detector is.
        metrics: get it as figures.
        log: gets it as lines.
        lines: is told of errors that nobody foresaw; rate-limited.
        is_restart: whether Ray has started this detector before.
        sleep: waits for so many seconds; handed in for tests.
        tidy: called each time; gives back what is not used any more.
        started: called once, when the detector's start has ended.
    """

    def __init__(
        self,
        snapshot: Callable[[], Health],
        metrics: DetectorMetrics,
        log: DetectorLog,
        lines: logging.Logger,
        is_restart: bool,
        sleep: Callable[[float], object] = time.sleep,
        tidy: Callable[[], object] = lambda: None,
        started: Callable[[], object] = lambda: None,
    ) -> None:
        self._snapshot = snapshot
        self._metrics = metrics
        self._log = log
        self._lines = lines
        self._is_restart = is_restart
        self._tidy = tidy
        self._started = started
        self._sleep = sleep
        self._has_told_start = False

    def run(self) -> None:
        """Write every few seconds, until the process ends."""
        repeat_blocking(
            self.step,
            name="Reporting the detector's health",
            log=self._lines,
            every_s=_REPORT_EVERY_S,
            wait=self._sleep,
        )

    def step(self) -> None:
        """Write once."""
        self._tidy()
        health = self._snapshot()
        if not self._has_told_start and health.state is not State.STARTING:
            self._metrics.started(self.cause(health.last_words))
            self._has_told_start = True
            self._started()
        self._metrics.report(health)
        self._log.report(health)

    def cause(self, last_words: str) -> str:
        """Why Ray started this process, in a word: first, hung, removed, or killed."""
        if last_words:
            return last_words.partition(":")[0]
        return "killed" if self._is_restart else "first"
