"""The caller's own CPU in place of a detector: by policy, with a reason on each outcome, within a budget.

It is the same model and the same code as a detector's, in this process, opened when it is first needed and
closed when it was not needed for a while.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from actors.face_detector import FaceDetector, start_detector
from actors.faces import Detected, Failed, Failure, Outcome, Priority, Rejected
from actors.images import PreparedImage
from actors.settings import DetectorSettings
from cluster.settings import FallbackSettings
from cluster.telemetry.tracing import OFF, Tracer

#: What another device would not change, or what must not be run in this process.
_NEVER = frozenset({Failure.CANCELLED, Failure.QUARANTINED})


class Budget:
    """So many a minute: a bucket that fills evenly and holds a minute's worth.

    Args:
        per_minute: how many.
        now: the present, in seconds on the clock that every later call uses.
    """

    def __init__(self, per_minute: int, now: float) -> None:
        self._per_s = per_minute / 60
        self._most = float(per_minute)
        self._left = float(per_minute)
        self._at = now

    def take(self, now: float, wanted: int) -> int:
        """As many of them as there are left."""
        self._left = min(self._most, self._left + (now - self._at) * self._per_s)
        self._at = now
        taken = min(wanted, int(self._left + 1e-9))
        self._left -= taken
        return taken

    @property
    def wait_s(self) -> float:
        """Until there is one again."""
        return max(0.0, (1.0 - self._left) / self._per_s)


class CpuFallback:
    """Answers on the CPU of this process what the policy gives it.

    Args:
        settings: the policy and its bounds.
        detector: the model and its thresholds, as a detector has them.
        clock: seconds, on which deadlines are.
        tracer: follows what is answered here.

    Attributes:
        num_by_reason: images answered here so far, by what is stamped on them.
        num_refused: images that were not, because the budget or the queue was at its end.
    """

    def __init__(
        self,
        settings: FallbackSettings,
        detector: DetectorSettings,
        clock: Callable[[], float],
        tracer: Tracer = OFF,
    ) -> None:
        self._settings = settings
        self._model = detector.model_copy(
            update={
                "provider": "cpu",
                "exclusive": False,
                "opener": settings.opener,
                "num_lanes": settings.max_threads,
                "max_queued_images": settings.max_queued_images,
            }
        )
        self._clock = clock
        self._tracer = tracer
        self._budget = Budget(settings.max_images_per_minute, clock())
        self._detector: FaceDetector | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._num_running = 0
        self._closing: set[asyncio.Task[object]] = set()
        self.num_by_reason: Counter[str] = Counter()
        self.num_refused = 0

    def serves(self, priority: Priority) -> bool:
        """Whether the policy gives it any images of this priority."""
        return self._settings.policy != "never" and (priority is Priority.INTERACTIVE or self._settings.bulk)

    @property
    def patience_s(self) -> float | None:
        """How long a detector may take before the CPU is asked; None: as long as the caller gives it."""
        return self._settings.after_s if self._settings.policy == "after_s" else None

    @property
    def is_open(self) -> bool:
        """Whether its model is in memory."""
        return self._detector is not None

    async def instead(
        self,
        images: Sequence[PreparedImage],
        outcomes: Sequence[Outcome],
        priority: Priority,
        deadline: float,
        *,
        circuits_are_open: bool,
    ) -> list[Outcome]:
        """The outcomes, with the CPU's in place of those failures that the policy gives it.

        Args:
            images: what was asked.
            outcomes: what a detector made of them, one each.
            priority: of the call.
            deadline: of the call, on the clock.
            circuits_are_open: whether no detector may be asked now.
        """
        given = [
            place
            for place, outcome in enumerate(outcomes)
            if isinstance(outcome, Failed)
            and outcome.reason not in _NEVER
            and (circuits_are_open or self.patience_s is not None)
        ]
        answers = list(outcomes)
        left_s = deadline - self._clock()
        if not given or left_s <= 0:
            return answers
        num_taken = self._budget.take(self._clock(), len(given))
        if num_taken < len(given):
            budget = (
                f"The CPU did not stand in: {self._settings.max_images_per_minute} images a minute are its "
                f"budget (fallback.max_images_per_minute); the next in {self._budget.wait_s:.0f} s."
            )
            for place in given[num_taken:]:
                answers[place] = self._refused(answers[place], budget)
        when = "circuit open" if circuits_are_open else "no answer"
        for place, answer in zip(
            given[:num_taken],
            await self._run([images[each] for each in given[:num_taken]], priority, left_s),
            strict=True,
        ):
            was = answers[place]
            assert isinstance(was, Failed)
            if not isinstance(answer, Detected):
                # Not even a refusal: the photo was good enough for the detector.
                why = answer.detail if isinstance(answer, Failed | Rejected) else str(answer)
                answers[place] = self._refused(was, f"The CPU could not stand in: {why}")
                continue
            reason = f"{when}: {was.reason}"
            self.num_by_reason[reason] += 1
            answers[place] = replace(answer, stamp=replace(answer.stamp, fallback=reason))
        return answers

    async def close(self) -> None:
        """Close the model, if it is open."""
        if self._idle is not None:
            self._idle.cancel()
        self._close_model()
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _refused(self, outcome: Outcome, why: str) -> Outcome:
        assert isinstance(outcome, Failed)
        self.num_refused += 1
        return replace(outcome, detail=f"{outcome.detail} {why}")

    async def _run(
        self, images: Sequence[PreparedImage], priority: Priority, left_s: float
    ) -> Sequence[Outcome]:
        if not images:
            return []
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._detector is None:
            # It ends no process: this one is the caller's.
            listener = self._tracer.listener("fallback")
            self._detector = start_detector("fallback", self._model, observer=listener)
        self._num_running += 1
        try:
            with self._tracer.span("fallback", num_images=len(images)) as span:
                outcomes = await self._detector.detect(images, priority.value, left_s, span.traceparent)
                span.outcomes(outcomes)
            return outcomes
        finally:
            self._num_running -= 1
            if not self._num_running:
                loop = asyncio.get_running_loop()
                self._idle = loop.call_later(self._settings.idle_s, self._close_model)

    def _close_model(self) -> None:
        detector, self._detector = self._detector, None
        if detector is not None:
            task: asyncio.Task[object] = asyncio.get_running_loop().create_task(detector.drain())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
