"""The detector, a plain class: starts, detects, tells its health, drains. `cluster` makes a Ray actor of it.

It is READY only after it has found the known face in the golden photo on the device that was asked for. Until
then, and when that fails, every image fails with the reason.
"""

from __future__ import annotations

import asyncio
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from actors.batch_runner import BatchRunner, ImageResult
from actors.batcher import Batcher
from actors.call_path import CallPath
from actors.call_settings import CallSettings, ModelChoice
from actors.device import Device
from actors.encoded_image import EncodedImage
from actors.errors import DetectorFault, HeadSilent, NotReady, OtherSettings, Quarantined
from actors.face_model import FaceModel
from actors.faces import (
    Failure,
    Health,
    Outcome,
    Priority,
    Stamp,
    State,
)
from actors.images import PreparedImage
from actors.intake import Encoded, ImageIntake
from actors.model_life import START_AGAIN_S, ModelLife
from actors.observer import Observer, Tally
from actors.ownership import new_incarnation
from actors.session import SessionOpener
from actors.settings import DetectorSettings

Image = PreparedImage | EncodedImage | Encoded | np.ndarray[Any, Any]

#: Seconds between two looks whether the device is to be tested or opened again.
_LOOK_EVERY_S = 5.0
#: Most seconds between two attempts to open the model after a fault.
_MAX_AGAIN_S = 300.0
_DETAILS = {
    State.READY: "",
    State.STARTING: "fetching, opening or warming up the model",
    State.DRAINING: "stopping, and answering what it had accepted",
    State.WAITING: "",
    State.FAULTY: "",
}
#: Draining ends with the process; a successor is there in seconds.
_AFTER_DRAINING_S = 1.0


class FaceDetector:
    """Owns one model on one device, and answers for it once it is started.

    Args:
        life: of the model; not started yet.
        incarnation: names this life of the process; None makes a name.

    Attributes:
        epoch: of this life, from the cluster; 0 outside any cluster.
        lease: how long the device may be used without news of the cluster.
    """

    def __init__(self, life: ModelLife, incarnation: str | None = None) -> None:
        self._life = life
        self._name = life.name
        self._settings = life.settings
        self._clock = life.clock
        self._born = life.clock()
        self._incarnation = incarnation or new_incarnation()
        self.epoch = 0
        self.lease = life.lease
        # On a GPU one more batch is assembled while the device runs this one.
        self._num_assembling = 1 if life.device.is_gpu else 0
        # And one thread more: for interactive images that overtake, and for the golden photo.
        num_threads = life.num_lanes + self._num_assembling + 1
        self._runners = ThreadPoolExecutor(num_threads, thread_name_prefix="run")
        self._draining = False
        self._tally = Tally()
        self._observer = life.observers
        self._observer.add(self._tally)
        self._intake = ImageIntake(self._settings)
        self._own = CallSettings.of(life.settings)
        self._placed = life.settings.model_dump(mode="json")
        refusals = _refuser(life), _refuser_of_others(life)
        self._path = CallPath(self._intake, self._observer, self._ready, *refusals, self.stamp)
        self._batcher: Batcher[ImageResult] | None = None
        self._runner: BatchRunner | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._checker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Open the model in the background. Images that come before it is open wait for it."""
        self._life.start()

    def __repr__(self) -> str:
        return f"{self._name}({self._state()}, {self._life.device.provider_name})"

    async def detect(
        self,
        images: Sequence[Image],
        priority: str = "interactive",
        deadline_s: float | None = None,
        trace: str = "",
        settings: CallSettings | None = None,
    ) -> list[Outcome]:
        """Find the faces in each image.

        Args:
            images: each a `PreparedImage` (cheapest: the caller has shrunk it), an `EncodedImage` (the same
                as a JPEG), an encoded photo as bytes, or pixels as uint8[height, width, 3] in BGR order.
                Paths are not read here.
            priority: "interactive" (a person waits) or "bulk".
            deadline_s: seconds from now until the outcomes are of no use; None waits as long as it takes.
            trace: the caller's name for the call (W3C Trace Context); observers are told of the call by it.
            settings: thresholds of this call; None takes those of the detector.

        Returns:
            One outcome for each image, in order. A fault of an image or of the device is an outcome, no
            error.

        Raises:
            ValueError: no such priority.
            TypeError: `images` is one image and not a sequence of them.
        """
        if isinstance(images, Encoded | str | np.ndarray | PreparedImage | EncodedImage):
            raise TypeError("Pass a list of images, even for one: detect([image]).")
        wanted = Priority(priority)
        deadline = math.inf if deadline_s is None else asyncio.get_running_loop().time() + deadline_s
        self._watch()
        return await self._path.outcomes(images, wanted, deadline, trace, settings or self._own)

    async def health(self, wait_s: float = 0.0) -> Health:
        """Tell how the detector is, after waiting up to `wait_s` seconds for a start under way to end."""
        self._watch()
        await self._wait_for_start(wait_s)
        return self.snapshot()

    async def check(self, wait_s: float = 0.0) -> Health:
        """Detect the golden photo now, and tell how the detector is.

        After a fault and its pause, the model is opened again first; that may take `wait_s` seconds.
        """
        self._watch()
        self._start_again_if_due()
        await self._wait_for_start(wait_s)
        if self._life.ready_model() is not None:
            await self._self_test()
        return self.snapshot()

    async def drain(self) -> Health:
        """Take no more images, answer those accepted, close the device, and tell how the detector is."""
        self._observer.event("draining")
        self._draining = True
        if self._checker is not None:
            self._checker.cancel()
        if self._batcher is not None and self._runner is not None:
            await self._batcher.close()
            await self._runner.close()
        # Both hold the model, and with it the device.
        self._batcher = self._runner = None
        self._intake.close()
        await asyncio.to_thread(self._life.close)
        return self.snapshot()

    def stamp(self) -> Stamp:
        """The stamp of every outcome: who answers, with which model, in which life."""
        model = self._life.ready_model()
        provider = model.provider if model else self._life.device.provider_name
        label = model.model.label if model else ""
        return Stamp(f"{self._name} on {provider}", label, self._incarnation, self.epoch)

    def drain_from_outside(self) -> None:
        """Drain at the wish of a thread of this process, not of a caller; returns when that is done."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self.drain(), self._loop).result()
        else:
            # No call has come yet, so there is nothing to answer.
            self._draining = True
            self._life.close()

    def keep_fresh(self) -> None:
        """Renew the lease after news of the cluster, and refresh the device's record."""
        self._life.keep_fresh()

    async def _ready(self, deadline: float) -> Batcher[ImageResult]:
        if self._draining:
            raise NotReady(
                f"{self._name} is draining and takes no more images; ask again in a moment.",
                _AFTER_DRAINING_S,
            )
        # Images are not kept here while the head is silent: another detector may take them meanwhile.
        self.lease.check()
        self._start_again_if_due()
        if not self._life.starting.done():
            left = None if math.isinf(deadline) else max(0.0, deadline - asyncio.get_running_loop().time())
            await self._wait_for_start(left)
            if not self._life.starting.done():
                raise NotReady(
                    f"{self._name} was still starting when the deadline passed; ask again in a moment."
                )
        model = self._life.ready_model()
        if model is None:
            why = self._life.fault or NotReady(f"{self._name} did not start; ask again in a moment.")
            raise why.fresh()
        return self._batches(model)

    async def _wait_for_start(self, seconds: float | None) -> None:
        if not self._life.starting.done():
            await asyncio.wait([asyncio.wrap_future(self._life.starting)], timeout=seconds)

    def _batches(self, model: FaceModel) -> Batcher[ImageResult]:
        if self._batcher is None:
            recorder = self._life.recorder
            life = self._life
            self._runner = BatchRunner(
                model, self._runners, self._self_test, lambda: life.fault, life.removed, self._observer
            )
            self._batcher = Batcher(
                self._runner,
                best_batch=model.best_batch,
                next_size=model.next_batch,
                expected_s=model.expected_s,
                assemble_s=model.assemble_s,
                num_lanes=self._life.num_lanes,
                num_assembling=self._num_assembling,
                max_queued=self._settings.max_queued_images,
                is_alone=lambda image: recorder is not None and recorder.is_suspect(image.digest),
            )
        return self._batcher

    def _start_again_if_due(self, pause_s: float = START_AGAIN_S) -> bool:
        """Open the model again if there is a fault and its pause is over; returns whether it did."""
        is_due = self._life.start_again_if_due(pause_s)
        if is_due:
            # The batcher runs batches on the old model.
            self._batcher = None
        return is_due

    async def _self_test(self) -> DetectorFault | None:
        return await asyncio.get_running_loop().run_in_executor(self._runners, self._life.self_test)

    def _watch(self) -> None:
        """Begin the regular check; at the first call, because no event loop runs before."""
        self._loop = asyncio.get_running_loop()
        if self._checker is None and not self._draining:
            self._checker = asyncio.get_running_loop().create_task(self._check_regularly())

    async def _check_regularly(self) -> None:
        """Test the device, or open it again after a fault, whether calls come or not."""
        interval_s = self._settings.golden_interval_s
        loop = asyncio.get_running_loop()
        proved_at, again_s = loop.time(), START_AGAIN_S
        while True:
            await asyncio.sleep(min(_LOOK_EVERY_S, interval_s))
            try:
                if self._start_again_if_due(again_s):
                    # A model may be missing for days: it is fetched less and less often.
                    again_s = min(2 * again_s, _MAX_AGAIN_S)
                elif self._life.ready_model() is not None:
                    again_s = START_AGAIN_S
                    if loop.time() - proved_at >= interval_s and self.lease.silence() is None:
                        proved_at = loop.time()
                        await self._self_test()
            except Exception as error:
                # Nobody foresaw it, and nobody waits for this task: tell it, and check again later.
                self._observer.trouble("check_failed", reason=type(error).__name__, detail=repr(error))

    def _state(self) -> State:
        if self._draining:
            return State.DRAINING
        if isinstance(self._life.fault, HeadSilent):
            return State.WAITING
        if self._life.fault is not None:
            return State.FAULTY
        if not self._life.starting.done():
            return State.STARTING
        return State.READY if self.lease.silence() is None else State.WAITING

    def snapshot(self) -> Health:
        """Tell how the detector is, now and without waiting; any thread may call it."""
        life, state, tally = self._life, self._state(), self._tally
        model, recorder, holder = life.ready_model(), life.recorder, life.holder
        fault = self.lease.silence() if state is State.WAITING else life.fault
        now = self._clock()
        return Health(
            name=self._name,
            state=state,
            detail=fault.detail if fault and state in (State.FAULTY, State.WAITING) else _DETAILS[state],
            failure=fault.failure if fault else Failure.NOT_READY if state is State.DRAINING else None,
            provider=model.provider if model else "",
            provider_requested=life.device.provider_name,
            device=str(life.device),
            owner_since=holder.since if holder else None,
            stamp=self.stamp(),
            host=platform.node(),
            pid=os.getpid(),
            uptime_s=round(now - self._born, 3),
            golden_age_s=None if life.golden_at is None else round(now - life.golden_at, 3),
            shapes=self._settings.shapes,
            buckets=model.timings if model else (),
            num_lanes=self._life.num_lanes,
            start_ms=dict(life.start_ms),
            num_queued=self._batcher.num_queued if self._batcher else 0,
            num_running=self._batcher.num_running if self._batcher else 0,
            num_queued_interactive=self._batcher.num_waiting(Priority.INTERACTIVE) if self._batcher else 0,
            num_detected=tally.num("detected"),
            num_rejected=tally.num("rejected"),
            num_failed=tally.num("failed"),
            num_runs=tally.num_runs,
            num_images_run=tally.num_images_run,
            num_slots=tally.num_slots,
            busy_s=round(tally.busy_s, 3),
            max_batch=model.max_batch if model else None,
            last_words=life.last_words,
            num_suspects=recorder.num_suspects if recorder else 0,
            num_quarantined=recorder.num_quarantined if recorder else 0,
            spare_cores=self._intake.spare_cores.measure(),
            settings=self._placed,
        )


def _refuser(life: ModelLife) -> Callable[[PreparedImage], None]:
    """What refuses images in quarantine; a function, because Ray slows the methods of actors."""

    def refuse(image: PreparedImage) -> None:
        recorder = life.recorder
        if recorder is not None and recorder.is_quarantined(image.digest):
            raise Quarantined(
                "The detector's process ended twice while this photo was on the device, the second time with "
                f"nothing else there. It is not run again for {life.settings.quarantine_s / 60:g} minutes."
            )

    return refuse


def _refuser_of_others(life: ModelLife) -> Callable[[CallSettings], None]:
    """What refuses calls for another model, or for other tensors, than this detector has."""

    def refuse(settings: CallSettings) -> None:
        if settings.wanted is None:
            return
        model = life.ready_model()
        placed = ModelChoice.of(life.settings, model.model.digest if model else "")
        if difference := settings.wanted.difference_to(placed):
            raise OtherSettings(f"{life.name} was placed with other settings: {difference}. Nothing was run.")

    return refuse


def start_detector(
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
) -> FaceDetector:
    """Make a detector that opens its model in the background; `ModelLife` explains the arguments."""
    detector = FaceDetector(
        ModelLife(
            name,
            settings,
            opener,
            clock,
            devices=devices,
            cluster=cluster,
            records=records,
            end=end,
            observer=observer,
        )
    )
    detector.start()
    return detector
