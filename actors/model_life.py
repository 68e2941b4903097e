"""The life of a model on its device: opened in a thread, tested, opened again after a fault, closed."""

from __future__ import annotations

import gc
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from actors import graph
from actors.batch_file import BatchFile, runtime_version
from actors.device import Device, Lease, opener_for, own_a_device, work_clock_for
from actors.errors import DetectorFault, DeviceRemoved, HeadSilent
from actors.face_model import FaceModel
from actors.flight_recorder import FlightRecorder
from actors.guard import Guard
from actors.intake import num_cores
from actors.models import ReadyModel, ready_model
from actors.observer import Observer, Observers
from actors.ownership import DeviceLock, Holder
from actors.session import SessionOpener
from actors.settings import DetectorSettings
from actors.watchdog import Watchdog

#: Least seconds between two starts of a detector that could not start, or whose device failed.
START_AGAIN_S = 30.0


class ModelLife:
    """Opens the model in a thread, after `start`; opens it again after a fault; closes it.

    Args:
        name: of the detector.
        settings: which model to open, on which device.
        opener: opens sessions; None takes the one that the settings name.
        clock: seconds, for durations.
        devices: devices of this machine that the detector may own; it takes the first free one and locks it
            for this process. None takes the device in the settings, and locks it where they say so.
        cluster: the cluster that the detector serves, in words; shown to others that find the device taken.
        records: folder for the record of the images on the device, and for the times of its batches; None
            keeps neither.
        end: ends the process, given the reason; called where only a new process helps. None: this process
            must not be ended.
        observer: told of what happens.

    Attributes:
        num_lanes: runs on the device at once.
        observers: told of what happens; more may be added before `start`.
        device: the device that is owned, or wanted.
        lease: how long the device may be used without news of the cluster.
        fault: what is wrong now; None while starting and when all is well.
        golden_at: when the golden photo was last detected correctly, by the clock; None if never.
        start_ms: milliseconds that each part of the start took: model, session, warm_up.
        recorder: the record of the images on the device; None before the device is open, and where no record
            is kept.
    """

    def __init__(
        self,
        name: str,
        settings: DetectorSettings,
        opener: SessionOpener | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        devices: Sequence[Device] | None = None,
        cluster: str = "",
        records: Path | None = None,
        end: Callable[[str], None] | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.clock = clock
        self._opener = opener
        self._devices = devices or [Device(settings.provider, settings.device_id)]
        self.device = self._devices[0]
        is_exclusive = self.device.is_gpu if settings.exclusive is None else settings.exclusive
        self._exclusive = bool(devices) or is_exclusive
        self.num_lanes = settings.num_lanes or (1 if self.device.is_gpu else num_cores())
        self._cluster = cluster
        self._records = records
        self._end = end
        self.observers = Observers([observer] if observer else [])
        self._fault_at = 0.0
        self._lock: DeviceLock | None = None
        self._watchdog = Watchdog(self._hung) if end is not None else None
        self._has_started = False
        self._is_refused = False
        self._starting: Future[FaceModel | None] = Future()
        self.lease = Lease(clock)
        self.fault: DetectorFault | None = None
        self.golden_at: float | None = None
        self.start_ms: dict[str, float] = {}
        self.recorder: FlightRecorder | None = None
        self._batch_file: BatchFile | None = None

    @property
    def last_words(self) -> str:
        """Why the process before this one ended itself; empty if it was killed, or if this is the first.

        A cause ("hung" or "removed"), a colon, and what happened.
        """
        return self.recorder.last_words if self.recorder else ""

    @property
    def starting(self) -> Future[FaceModel | None]:
        """The latest start; its result is the model, or None after a fault."""
        return self._starting

    @property
    def holder(self) -> Holder | None:
        """The machine's record of who holds the device; None while this process has no lock on it."""
        return self._lock.holder() if self._lock else None

    def ready_model(self) -> FaceModel | None:
        """The model, if it is open and nothing is wrong; else None."""
        return self._starting.result() if self._starting.done() and self.fault is None else None

    def start(self) -> None:
        """Open the model in a thread; after a fault, open it anew. An error becomes the `fault`."""
        self.fault = None
        # An exception in it would be logged at every wait for it; so the result after a fault is None.
        starting: Future[FaceModel | None] = Future()
        self._starting = starting
        try:
            if self._watchdog is not None and not self._has_started:
                self._watchdog.start()
            self._has_started = True
            self.observers.event("starting", device=self.device)
            threading.Thread(target=self._start, args=(starting,), name="start", daemon=True).start()
        except Exception as error:
            # The system may have no thread left.
            self._end_start_with(error, starting)

    def refuse(self, fault: DetectorFault) -> None:
        """Never start, because of a fault that only another order to place the detector ends."""
        self._is_refused = True
        self._set_fault(fault)
        self._starting.set_result(None)

    def start_again_if_due(self, pause_s: float = START_AGAIN_S) -> bool:
        """Start again if there is a fault and `pause_s` seconds have passed since; returns whether it did.

        A start during which the head fell silent is made again as soon as the head is heard.
        """
        if isinstance(self.fault, HeadSilent):
            pause_s = 0.0 if self.lease.silence() is None else math.inf
        if self._is_refused or self.fault is None or self.clock() - self._fault_at < pause_s:
            return False
        if isinstance(self.fault, DeviceRemoved):
            self.removed(f"{self.fault.detail} A new process starts and tries the device again.")
        self.start()
        return True

    def self_test(self) -> DetectorFault | None:
        """Detect the golden photo now, and return what is wrong, which is `fault` from then on; blocks.

        A silent head says nothing about the device: it is returned, and is no `fault`.
        """
        if (model := self.ready_model()) is None:
            return self.fault
        try:
            model.check_golden()
        except HeadSilent as silent:
            return silent
        except DetectorFault as fault:
            self._set_fault(fault)
            if isinstance(fault, DeviceRemoved):
                self.removed(fault.detail)
        else:
            self.golden_at = self.clock()
            self._keep_times(model)
        return self.fault

    def removed(self, detail: str) -> None:
        """End the process, because the device is gone: only a new process gets it back."""
        self._give_up("removed", detail)

    def _hung(self, detail: str) -> None:
        self._give_up("hung", detail)

    def _give_up(self, cause: str, detail: str) -> None:
        """Record the cause for the next process, and end this one where we may."""
        if self._end is None:
            return
        words = f"{cause}: {detail}"
        try:
            if self.recorder is not None:
                self.recorder.say_last(words)
            self.observers.trouble("given_up", device=self.device, reason=cause, detail=detail)
        finally:
            # Whatever happens, the process ends: nothing else gets the device back.
            self._end(words)

    def keep_fresh(self) -> None:
        """Renew the lease after news of the cluster, and refresh the device's record."""
        self.lease.renew()
        if self._lock is not None:
            self._lock.refresh()

    def close(self) -> None:
        """Close the device, and only then release its lock; blocks until a start under way is over."""
        if not self._has_started:
            return
        if (model := self._starting.result()) is not None and self.fault is None:
            self._keep_times(model)
        # Nothing may hold the model any more: with it, the device is closed.
        del model
        self._starting = Future()
        self._starting.set_result(None)
        gc.collect()
        if self._watchdog is not None:
            self._watchdog.close()
        if self.recorder is not None:
            self.recorder.close()
            self.recorder = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _set_fault(self, fault: DetectorFault) -> None:
        self.fault, self._fault_at = fault, self.clock()
        self.observers.trouble("faulty", device=self.device, reason=fault.failure, detail=fault.detail)

    def _end_start_with(self, error: BaseException, starting: Future[FaceModel | None]) -> None:
        try:
            self._set_fault(_detector_fault(error))
        finally:
            # Whatever happens, the start is over: others wait for it.
            starting.set_result(None)

    def _start(self, starting: Future[FaceModel | None]) -> None:
        """Fetch the model, open the session and warm up; in a thread, so that health can answer meanwhile."""
        try:
            begun = self.clock()
            ready = ready_model(self.settings)
            modelled = self.clock()
            # Nowhere else is a device opened: first it is locked, then the session is opened.
            if self._exclusive and self._lock is None:
                self.device, self._lock = own_a_device(
                    self._devices, self.name, self._cluster, 2 * self.settings.lease_s
                )
            opener = self._opener or opener_for(self.device, self.settings)
            self._open_record(ready.label)
            self._open_batch_file(ready)
            guard = Guard(self.num_lanes, self.lease.check, self._watchdog, self.recorder)
            model = FaceModel(
                ready,
                opener,
                self.settings,
                guard,
                observer=self.observers,
                provider=self.device.provider_name,
                kept=self._batch_file.read() if self._batch_file else (),
                work_clock=None if self._opener else work_clock_for(self.device, self.settings),
            )
            opened = self.clock()
            model.warm_up()
            self.golden_at = self.clock()
            self._keep_times(model)
            self.start_ms = {
                "model": round((modelled - begun) * 1000, 1),
                "session": round((opened - modelled) * 1000, 1),
                "warm_up": round((self.golden_at - opened) * 1000, 1),
            }
        except BaseException as error:
            self._end_start_with(error, starting)
        else:
            starting.set_result(model)
            self.observers.event(
                "ready",
                device=self.device,
                provider=model.provider,
                model=ready.label,
                best_batch=model.best_batch(self.settings.shapes[0]),
                **{f"{part}_ms": spent for part, spent in self.start_ms.items()},
            )

    def _record_name(self) -> str:
        # A locked device has one owner; detectors that share a device are told apart by name.
        return self.device.lock_name if self._exclusive else f"{self.name}-{self.device.lock_name}"

    def _open_batch_file(self, ready: ReadyModel) -> None:
        """Find the times that an earlier process kept of this device, driver, model and settings."""
        if self._records is not None:
            settings = self.settings
            parts = (
                self.device,
                type(self._opener).__name__ if self._opener else settings.opener or self.device.provider_name,
                runtime_version(),
                f"{ready.digest}-{graph.RECIPE}",
                settings.shapes,
                settings.batch_sizes,
                f"{self.num_lanes} lanes",
            )
            self._batch_file = BatchFile(
                self._records / f"rayface-{self._record_name()}.batches.json",
                " | ".join(map(str, parts)),
                lambda detail: self.observers.event("batch_times", detail=detail),
            )

    def _keep_times(self, model: FaceModel) -> None:
        if self._batch_file is not None:
            self._batch_file.write(model.table.kept())

    def _open_record(self, model_label: str) -> None:
        """Open the record once in a process: what the process before left is judged once."""
        if self.recorder is None and self._records is not None:
            self.recorder = FlightRecorder(
                self._records / f"rayface-{self._record_name()}.flights.json",
                f"{model_label} on {self.device}",
                self.settings.quarantine_s,
            )
            if self.recorder.num_suspects or self.recorder.num_quarantined or self.recorder.last_words:
                self.observers.trouble(
                    "predecessor_died",
                    num_suspects=self.recorder.num_suspects,
                    num_quarantined=self.recorder.num_quarantined,
                    detail=self.recorder.last_words,
                )


def _detector_fault(error: BaseException) -> DetectorFault:
    return (
        error
        if isinstance(error, DetectorFault)
        else DetectorFault(f"The detector could not start: {error!r}. Please report it.")
    )
