"""The caller's own CPU stands in for a detector, by policy and within a budget.

It runs the same model and the same code as a detector, in this process. The model is opened when it is first
needed, and closed when nobody has needed it for a while. Each outcome says that the CPU gave it, and why.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from actors.call_settings import CallSettings
from actors.faces import Detected, Failed, Failure, Outcome, Priority, Rejected
from actors.images import PreparedImage
from actors.observer import Observer
from actors.settings import DetectorSettings
from cluster.client.call import Call, CallImage
from cluster.errors import NOT_NOW, Refused
from cluster.settings import FallbackSettings
from cluster.telemetry.tracing import OFF, Tracer

#: CANCELLED: nobody wants the answer. QUARANTINED: the image ended a process, and this one is the caller's.
_NEVER = frozenset({Failure.CANCELLED, Failure.QUARANTINED})


class CpuDetector(Protocol):
    """A detector in this process; `FaceDetector` is one."""

    async def detect(
        self,
        images: Sequence[PreparedImage],
        priority: str,
        deadline_s: float,
        trace: str,
        settings: CallSettings,
    ) -> Sequence[Outcome]:
        """One outcome for each image, in order."""
        ...

    async def drain(self) -> object:
        """Answer what was accepted, and close the model."""
        ...


def open_cpu_detector(settings: DetectorSettings, observer: Observer | None) -> CpuDetector:
    """Make the detector of this process; it opens its model in the background."""
    # Loaded here: few clients ever need a detector of their own.
    from actors.face_detector import start_detector

    return start_detector("fallback", settings, observer=observer)


class Budget:
    """Allows so many images a minute: a bucket that fills evenly and holds at most a minute's images.

    Args:
        per_minute: images in a minute.
        now: the present, in seconds on the clock that every later call uses.
    """

    def __init__(self, per_minute: int, now: float) -> None:
        self._per_s = per_minute / 60
        self._most = float(per_minute)
        self._left = float(per_minute)
        self._at = now

    def take(self, now: float, wanted: int) -> int:
        """Take as many of the wanted images as are left; returns how many those are."""
        self._left = min(self._most, self._left + (now - self._at) * self._per_s)
        self._at = now
        taken = min(wanted, int(self._left + 1e-9))
        self._left -= taken
        return taken

    @property
    def wait_s(self) -> float:
        """Seconds until there is one again."""
        return max(0.0, (1.0 - self._left) / self._per_s)


class CpuFallback:
    """Answers on the CPU of this process what the policy gives it.

    Args:
        settings: the policy and its bounds.
        detector: returns the settings of a detector whose model is the one that the detectors have now.
        clock: seconds; call deadlines are on the same clock.
        tracer: follows what is answered here.
        open_detector: makes the detector of this process.
        on_refused: called for each image that the policy gave to the CPU and that the CPU did not answer.

    Attributes:
        num_by_reason: images answered here so far, by the reason that is stamped on them.
        num_refused: images that were not answered, for want of budget or because the CPU could not.
    """

    def __init__(
        self,
        settings: FallbackSettings,
        detector: Callable[[], DetectorSettings],
        clock: Callable[[], float],
        tracer: Tracer = OFF,
        *,
        open_detector: Callable[[DetectorSettings, Observer | None], CpuDetector] = open_cpu_detector,
        on_refused: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._settings_of_detector = detector
        #: What the open detector was made with.
        self._opened_with: DetectorSettings | None = None
        self._clock = clock
        self._tracer = tracer
        self._open_detector = open_detector
        self._on_refused = on_refused
        self._budget = Budget(settings.max_images_per_minute, clock())
        self._detector: CpuDetector | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._num_running = 0
        self._closing: set[asyncio.Task[object]] = set()
        self.num_by_reason: Counter[str] = Counter()
        self.num_refused = 0

    def serves(self, priority: Priority) -> bool:
        """Whether the policy gives the CPU any images of this priority."""
        return self._settings.policy != "never" and (priority is Priority.INTERACTIVE or self._settings.bulk)

    @property
    def patience_s(self) -> float | None:
        """How long a detector may take before the CPU is asked; None: as long as the caller's deadline."""
        return self._settings.after_s if self._settings.policy == "after_s" else None

    async def stand_in(self, call: Call, refusal: Refused | None) -> None:
        """Put the CPU's outcome in place of each failure that the policy gives it.

        A failure that stays gets a sentence on why the CPU did not stand in.

        Args:
            call: its prepared images have the outcomes that the detectors gave.
            refusal: why no detector may be asked now; None if one may.
        """
        if refusal is None and self.patience_s is None:
            return
        left_s = call.deadline - self._clock()
        failed = [image for image in call.prepared if _may_stand_in(image)]
        if not failed or left_s <= 0:
            return
        num_taken = self._budget.take(self._clock(), len(failed))
        for image in failed[num_taken:]:
            self._refuse(
                image,
                f"The CPU did not stand in: {self._settings.max_images_per_minute} images a minute are its "
                f"budget (fallback.max_images_per_minute); the next in {self._budget.wait_s:.0f} s.",
            )
        taken = failed[:num_taken]
        if refusal is None:
            when = "no answer"
        else:
            when = "not now" if refusal.fault.failure in NOT_NOW else "circuit open"
        photos = [image.photo for image in taken if image.photo]
        answers = await self._run(photos, call.priority, left_s, call.settings)
        for image, answer in zip(taken, answers, strict=True):
            self._replace(image, answer, when)

    async def close(self) -> None:
        """Close the model, if it is open."""
        if self._idle is not None:
            self._idle.cancel()
        self._close_model()
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _replace(self, image: CallImage, answer: Outcome, when: str) -> None:
        if not isinstance(answer, Detected):
            # A rejection does not count either: the photo was good enough for the detector.
            why = answer.detail if isinstance(answer, Failed | Rejected) else str(answer)
            self._refuse(image, f"The CPU could not stand in: {why}")
            return
        assert isinstance(image.outcome, Failed)
        reason = f"{when}: {image.outcome.reason}"
        self.num_by_reason[reason] += 1
        image.outcome = replace(answer, stamp=replace(answer.stamp, fallback=reason))

    def _refuse(self, image: CallImage, why: str) -> None:
        assert isinstance(image.outcome, Failed)
        self.num_refused += 1
        self._on_refused()
        image.outcome = replace(image.outcome, detail=f"{image.outcome.detail} {why}")

    async def _run(
        self, photos: Sequence[PreparedImage], priority: Priority, left_s: float, settings: CallSettings
    ) -> Sequence[Outcome]:
        if not photos:
            return []
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        wanted = self._wanted_model()
        if wanted != self._opened_with:
            # The detectors have another model by now. What the open one has accepted, it answers.
            self._close_model()
        detector = self._detector
        if detector is None:
            detector = self._detector = self._open_detector(wanted, self._tracer.listener("fallback"))
            self._opened_with = wanted
        self._num_running += 1
        try:
            with self._tracer.span("fallback", num_images=len(photos)) as span:
                outcomes = await detector.detect(photos, priority.value, left_s, span.traceparent, settings)
                span.outcomes(outcomes)
            return outcomes
        finally:
            self._num_running -= 1
            if not self._num_running:
                loop = asyncio.get_running_loop()
                self._idle = loop.call_later(self._settings.idle_s, self._close_model)

    def _wanted_model(self) -> DetectorSettings:
        return self._settings_of_detector().model_copy(
            update={
                "provider": "cpu",
                "exclusive": False,
                "opener": self._settings.opener,
                "num_lanes": self._settings.max_threads,
                "max_queued_images": self._settings.max_queued_images,
            }
        )

    def _close_model(self) -> None:
        detector, self._detector = self._detector, None
        if detector is not None:
            task: asyncio.Task[object] = asyncio.create_task(detector.drain())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def _may_stand_in(image: CallImage) -> bool:
    return isinstance(image.outcome, Failed) and image.outcome.reason not in _NEVER
