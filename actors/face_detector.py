"""The detector: a plain class that becomes a Ray actor elsewhere. Starts, detects, says how it is, drains.

It may only call itself READY after it has found the known face in the golden photo on the device that was
asked for. Until then, and when that fails, every image is answered with the reason.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from actors.batcher import Answered, Batcher
from actors.device import Device, Lease, opener_for, own_a_device
from actors.errors import DetectorFault, DeviceFailed, DeviceLies, ImageFault, NotReady
from actors.face_model import FaceModel
from actors.faces import (
    Detected,
    Face,
    Failed,
    Failure,
    Health,
    Outcome,
    Priority,
    Rejected,
    Stamp,
    State,
    Times,
)
from actors.images import PreparedImage
from actors.models import ReadyModel, ready_model
from actors.ownership import DeviceLock
from actors.preparing import Encoded, Preparer, num_cores
from actors.session import SessionOpener
from actors.settings import DetectorSettings

#: A detector that could not start tries again when asked, but not more often than this.
_START_AGAIN_S = 30.0


class FaceDetector:
    """Owns one model on one device and answers for it.

    Args:
        name: how it calls itself on outcomes.
        settings: `DetectorSettings`, or the same as a mapping (what travels through Ray).
        opener: opens sessions; None takes what the settings say.
        devices: those of this machine that may be owned, the first free one is; None takes the settings'.
        cluster: which one it serves, in words, for whoever finds the device taken.
    """

    def __init__(
        self,
        name: str = "FaceDetector",
        settings: DetectorSettings | Mapping[str, Any] | None = None,
        opener: SessionOpener | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        devices: Sequence[Device] | None = None,
        cluster: str = "",
    ) -> None:
        self._name = name
        self._cluster = cluster
        self._settings = (
            settings
            if isinstance(settings, DetectorSettings)
            else DetectorSettings.model_validate(settings or {})
        )
        self._clock = clock
        self._born = clock()
        self._host = platform.node()
        self._incarnation = f"{self._host}-{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self._devices = devices or [Device(self._settings.provider, self._settings.device_id)]
        on_gpu = self._devices[0].provider != "cpu"
        self._exclusive = bool(devices) or (
            on_gpu if self._settings.exclusive is None else self._settings.exclusive
        )
        self._device = self._devices[0]
        self._lock: DeviceLock | None = None
        self.lease = Lease(clock)
        self.epoch = 0
        self._num_lanes = self._settings.num_lanes or (1 if on_gpu else num_cores())
        # On a GPU one thread more than lanes: it assembles the next batch while the device runs this one.
        self._num_workers = self._num_lanes + (1 if on_gpu else 0)
        self._opener = opener
        self._runners = ThreadPoolExecutor(self._num_workers, thread_name_prefix="run")
        self._preparer = Preparer(self._settings)
        self._start_ms: dict[str, float] = {}
        self._golden_at: float | None = None
        self._fault: DetectorFault | None = None
        self._fault_at = 0.0
        self._draining = False
        self._counts = {"detected": 0, "rejected": 0, "failed": 0}
        self._batcher: Batcher[tuple[Face, ...]] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._checker: asyncio.Task[None] | None = None
        self._start_again()

    def __repr__(self) -> str:
        return f"{self._name}({self._state()}, {self._device.provider_name})"

    async def detect(
        self,
        images: Sequence[PreparedImage | Encoded | np.ndarray[Any, Any]],
        priority: str = "interactive",
        deadline_s: float | None = None,
    ) -> list[Outcome]:
        """Find the faces in each image.

        Args:
            images: each a `PreparedImage` (cheapest: the caller has shrunk it), an encoded photo as bytes,
                or pixels as uint8[height, width, 3] in BGR order. Paths are not read here.
            priority: "interactive" (a person waits) or "bulk".
            deadline_s: seconds from now until the answers are of no use; None waits as long as it takes.

        Returns:
            One outcome an image, in order. Never raises for an image's or the device's fault.

        Raises:
            ValueError: no such priority.
            TypeError: `images` is one image and not a sequence of them.
        """
        if isinstance(images, Encoded | str | np.ndarray | PreparedImage):
            raise TypeError("Pass a list of images, even for one: detect([image]).")
        wanted = Priority(priority)
        deadline = math.inf if deadline_s is None else asyncio.get_running_loop().time() + deadline_s
        self._watch()
        return list(await asyncio.gather(*(self._answer(image, wanted, deadline) for image in images)))

    async def health(self, wait_s: float = 0.0) -> Health:
        """How the detector is, waiting up to `wait_s` seconds for a start under way to end."""
        self._watch()
        if wait_s > 0 and not self._starting.done():
            await asyncio.wait([asyncio.wrap_future(self._starting)], timeout=wait_s)
        return self._health()

    async def check(self) -> Health:
        """Prove the device now, with the golden photo, and say how the detector is."""
        self._watch()
        if (model := self._ready_model()) is not None:
            await self._prove(model)
        return self._health()

    async def drain(self) -> Health:
        """Take no more images, answer those accepted, close the device, and say how it went."""
        self._draining = True
        if self._checker is not None:
            self._checker.cancel()
        if self._batcher is not None:
            await self._batcher.close()
        await asyncio.to_thread(self._let_go)
        return self._health()

    def stamp(self) -> Stamp:
        """What is put on every outcome."""
        model = self._ready_model()
        provider = model.provider if model else self._device.provider_name
        label = model.model.label if model else ""
        return Stamp(f"{self._name} on {provider}", label, self._incarnation, self.epoch)

    async def _answer(self, image: object, priority: Priority, deadline: float) -> Outcome:
        prepare_ms = 0.0
        try:
            model = await self._ready(deadline)
            queued = self._batcher.num_queued if self._batcher else 0
            prepared = await self._preparer.prepare(image, queued)
            prepare_ms = prepared.prepare_ms
            done: Answered[tuple[Face, ...]] = await self._batches(model).submit(prepared, priority, deadline)
        except ImageFault as fault:
            self._counts["rejected"] += 1
            return Rejected(
                stamp=self.stamp(), times=Times(prepare_ms), reason=fault.reason, detail=fault.detail
            )
        except DetectorFault as fault:
            self._counts["failed"] += 1
            return Failed(
                stamp=self.stamp(),
                times=Times(prepare_ms),
                reason=fault.failure,
                detail=fault.detail,
                retry_after_s=fault.retry_after_s,
            )
        except Exception as error:
            # Not foreseen, so ours; it must not cost the other images of the call their outcomes.
            self._counts["failed"] += 1
            return Failed(
                stamp=self.stamp(),
                times=Times(prepare_ms),
                reason=Failure.INTERNAL,
                detail=f"Something failed that never should: {error!r}. Please report it.",
            )
        self._counts["detected"] += 1
        return Detected(
            stamp=self.stamp(),
            times=Times(prepare_ms, done.queue_ms, done.run_ms),
            faces=done.value,
            width=prepared.width,
            height=prepared.height,
        )

    async def _ready(self, deadline: float) -> FaceModel:
        if self._draining:
            raise NotReady(f"{self._name} is draining and takes no more images; ask again in a moment.")
        if self._fault is not None and self._clock() - self._fault_at >= _START_AGAIN_S:
            self._start_again()
        if not self._starting.done():
            left = None if math.isinf(deadline) else max(0.0, deadline - asyncio.get_running_loop().time())
            await asyncio.wait([asyncio.wrap_future(self._starting)], timeout=left)
            if not self._starting.done():
                raise NotReady(
                    f"{self._name} was still starting when the time was up; ask again in a moment."
                )
        model = self._starting.result()
        if self._fault is not None or model is None:
            raise self._fault or NotReady(f"{self._name} did not start; ask again in a moment.")
        return model

    def _batches(self, model: FaceModel) -> Batcher[tuple[Face, ...]]:
        if self._batcher is None:
            self._batcher = Batcher(
                partial(self._run, model),
                best_batch=model.best_batch,
                expected_s=model.expected_s,
                num_lanes=self._num_workers,
                max_queued=self._settings.max_queued_images,
            )
        return self._batcher

    async def _run(self, model: FaceModel, batch: Sequence[PreparedImage]) -> Sequence[tuple[Face, ...]]:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._runners, model.detect, batch)
        except (DeviceFailed, DeviceLies) as fault:
            # After any doubt the device has to prove itself before the next photo is trusted to it.
            await self._prove(model)
            raise fault

    async def _prove(self, model: FaceModel) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._runners, model.check_golden)
        except DetectorFault as fault:
            self._fault, self._fault_at = fault, self._clock()
        else:
            self._golden_at = self._clock()

    def _watch(self) -> None:
        """Begin proving the idle device from time to time; here, because only now a loop is running."""
        self._loop = asyncio.get_running_loop()
        if self._checker is None and not self._draining:
            self._checker = asyncio.get_running_loop().create_task(self._check_when_idle())

    async def _check_when_idle(self) -> None:
        while True:
            await asyncio.sleep(self._settings.golden_interval_s)
            model = self._ready_model()
            busy = self._batcher is not None and self._batcher.num_running > 0
            if model is not None and not busy:
                await self._prove(model)

    def _start_again(self) -> None:
        self._fault = None
        self._batcher = None
        # Holds the model, or None after a fault: an exception would be logged at every wait for it.
        self._starting: Future[FaceModel | None] = Future()
        threading.Thread(target=self._start, args=(self._starting,), name="start", daemon=True).start()

    def _start(self, starting: Future[FaceModel | None]) -> None:
        """Model, session, warm-up with the golden photo; in a thread, so that health can answer."""
        try:
            begun = self._clock()
            ready = ready_model(self._settings)
            modelled = self._clock()
            model = self._open(ready)
            opened = self._clock()
            model.warm_up()
            self._golden_at = self._clock()
            self._start_ms = {
                "model": round((modelled - begun) * 1000, 1),
                "session": round((opened - modelled) * 1000, 1),
                "warm_up": round((self._golden_at - opened) * 1000, 1),
            }
        except BaseException as error:
            fault = (
                error if isinstance(error, DetectorFault) else DetectorFault(f"Starting failed: {error!r}")
            )
            self._fault, self._fault_at = fault, self._clock()
            starting.set_result(None)
        else:
            starting.set_result(model)

    def _open(self, ready: ReadyModel) -> FaceModel:
        """The one place where a device is opened: first the right to it, then the session."""
        if self._exclusive and self._lock is None:
            self._device, self._lock = own_a_device(
                self._devices, self._name, self._cluster, 2 * self._settings.lease_s
            )
        opener = self._opener or opener_for(self._device, self._settings)
        return FaceModel(ready, opener, self._settings, self._num_lanes, may_run=self.lease.check)

    def _let_go(self) -> None:
        """Close the device, and only then give up the right to it."""
        self._starting.result()
        self._batcher = None
        self._starting = Future()
        self._starting.set_result(None)
        gc.collect()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def drain_from_outside(self) -> None:
        """`drain`, asked for by a thread of this process and not by a caller; returns when it is done."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self.drain(), self._loop).result()
        else:
            # Nobody has asked anything yet, so there is nothing to answer.
            self._draining = True
            self._let_go()

    def keep_fresh(self) -> None:
        """The cluster was heard: go on, and show whoever waits for the device that its owner is well."""
        self.lease.renew()
        if self._lock is not None:
            self._lock.refresh()

    def _ready_model(self) -> FaceModel | None:
        return self._starting.result() if self._starting.done() and self._fault is None else None

    def _state(self) -> State:
        if self._draining:
            return State.DRAINING
        if self._fault is not None:
            return State.FAULTY
        return State.READY if self._starting.done() else State.STARTING

    def _health(self) -> Health:
        state, fault, model = self._state(), self._fault, self._ready_model()
        holder = self._lock.holder() if self._lock else None
        now = self._clock()
        reasons = {
            State.READY: "",
            State.STARTING: "fetching, opening or warming up the model",
            State.DRAINING: "stopping, and answering what it had accepted",
            State.FAULTY: fault.detail if fault else "",
        }
        return Health(
            name=self._name,
            state=state,
            reason=reasons[state],
            failure=fault.failure if fault else Failure.NOT_READY if state is State.DRAINING else None,
            provider=model.provider if model else "",
            provider_requested=self._device.provider_name,
            device=str(self._device),
            owner_since=holder.since if holder else None,
            stamp=self.stamp(),
            host=self._host,
            pid=os.getpid(),
            uptime_s=round(now - self._born, 3),
            golden_age_s=None if self._golden_at is None else round(now - self._golden_at, 3),
            shapes=self._settings.shapes,
            buckets=model.timings if model else (),
            num_lanes=self._num_lanes,
            start_ms=dict(self._start_ms),
            num_queued=self._batcher.num_queued if self._batcher else 0,
            num_running=self._batcher.num_running if self._batcher else 0,
            num_detected=self._counts["detected"],
            num_rejected=self._counts["rejected"],
            num_failed=self._counts["failed"],
        )
