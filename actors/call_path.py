"""The way of a call's images through the detector: room, check, batch, outcome. One fault costs one image."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from actors.batch_runner import ImageResult
from actors.batcher import Batcher
from actors.call_settings import CallSettings
from actors.errors import DetectorFault, ImageFault
from actors.faces import Damage, Detected, Failed, Failure, Outcome, Priority, Rejected, Stamp, Times
from actors.images import PreparedImage
from actors.intake import ImageIntake
from actors.observer import Call, ImageTrace, Observer
from actors.waiting import TimedResult


@dataclass(slots=True)
class _Passage:
    """One image on its way.

    Attributes:
        image: as the caller sent it.
        prepared: the same, checked and prepared.
        queued_at: when it began to wait for a run, by `time.perf_counter`; None before.
        found: what the run found; None before.
        error: why it goes no further.
    """

    image: object
    prepared: PreparedImage | None = None
    queued_at: float | None = None
    found: TimedResult[ImageResult] | None = None
    error: Exception | None = None


class CallPath:
    """Takes calls through the detector.

    Args:
        intake: checks and prepares images.
        observer: told of each image's outcome, and of calls that came with a trace.
        batches: waits for the model until a moment on the event loop's clock, and returns the batcher; raises
            the `DetectorFault` that there is none for.
        refuse: raises where an image must not be run.
        refuse_others: raises where a call wants another model, or other tensors, than the detector has.
        stamp: returns the stamp of outcomes.
    """

    def __init__(
        self,
        intake: ImageIntake,
        observer: Observer,
        batches: Callable[[float], Awaitable[Batcher[ImageResult]]],
        refuse: Callable[[PreparedImage], None],
        refuse_others: Callable[[CallSettings], None],
        stamp: Callable[[], Stamp],
    ) -> None:
        self._intake = intake
        self._observer = observer
        self._batches = batches
        self._refuse = refuse
        self._refuse_others = refuse_others
        self._stamp = stamp

    async def outcomes(
        self,
        images: Sequence[object],
        priority: Priority,
        deadline: float,
        trace: str,
        settings: CallSettings,
    ) -> list[Outcome]:
        """One outcome for each image, in order; no fault is raised.

        Args:
            images: as the caller sent them.
            priority: of all of them.
            deadline: moment on the event loop's clock after which the outcomes are of no use.
            trace: the caller's name for the call; empty if it has none.
            settings: of the call.
        """
        begun = perf_counter()
        groups = _groups(images)
        if len(groups) == 1:
            ways = await self._together(images, priority, deadline, settings)
        else:
            several = await asyncio.gather(
                *(
                    self._together([images[at] for at in group], priority, deadline, settings)
                    for group in groups
                )
            )
            by_place = {
                at: way
                for group, found in zip(groups, several, strict=True)
                for at, way in zip(group, found, strict=True)
            }
            ways = [by_place[at] for at in range(len(images))]
        if trace:
            self._observer.call(Call(trace, priority, begun, perf_counter(), tuple(ways)))
        return [way.outcome for way in ways]

    async def _together(
        self, images: Sequence[object], priority: Priority, deadline: float, settings: CallSettings
    ) -> list[ImageTrace]:
        passages = [_Passage(image) for image in images]
        with self._intake.room() as take:
            for each in passages:
                try:
                    take(each.image)
                except DetectorFault as fault:
                    each.error = fault
            try:
                await self._pass(passages, priority, deadline, settings)
            except Exception as error:
                for each in passages:
                    each.error = each.error or error
        ended, stamp = perf_counter(), self._stamp()
        traces = [
            ImageTrace(
                self._outcome(each, stamp),
                ended,
                each.queued_at,
                each.found.value.run if each.found else None,
            )
            for each in passages
        ]
        self._observer.images([each.outcome for each in traces], priority)
        return traces

    async def _pass(
        self, passages: Sequence[_Passage], priority: Priority, deadline: float, settings: CallSettings
    ) -> None:
        batcher = await self._batches(deadline)
        self._refuse_others(settings)
        ready: list[_Passage] = []
        images: list[PreparedImage] = []
        for each in passages:
            if each.error is not None:
                continue
            try:
                each.prepared = await self._intake.prepare(each.image, batcher.num_queued, deadline)
                self._refuse(each.prepared)
            except Exception as error:
                each.error = error
            else:
                ready.append(each)
                images.append(each.prepared)
        if not ready:
            return
        queued_at = perf_counter()
        for each in ready:
            each.queued_at = queued_at
        # Preparing may have taken long, and the model may have been opened again meanwhile.
        batcher = await self._batches(deadline)
        answers = await batcher.submit(images, priority, deadline, settings)
        for each, answer in zip(ready, answers, strict=True):
            if isinstance(answer, TimedResult):
                each.found = answer
            else:
                each.error = answer

    def _outcome(self, passage: _Passage, stamp: Stamp) -> Outcome:
        image, found, error = passage.prepared, passage.found, passage.error
        prepare_ms = image.prepare_ms if image is not None else 0.0
        if image is not None and found is not None:
            return Detected(
                stamp=stamp,
                times=Times(prepare_ms, found.queue_ms, found.run_ms),
                faces=found.value.faces,
                width=image.width,
                height=image.height,
                damaged=Damage(image.decoded_share) if image.decoded_share < 1.0 else None,
            )
        times = Times(prepare_ms)
        if isinstance(error, ImageFault):
            return Rejected(stamp=stamp, times=times, reason=error.reason, detail=error.detail)
        if isinstance(error, DetectorFault):
            return Failed(
                stamp=stamp,
                times=times,
                reason=error.failure,
                detail=error.detail,
                retry_after_s=error.retry_after_s,
            )
        # Nobody foresaw it; it must not cost the other images of the call their outcomes.
        detail = f"The detector failed with an error that was not foreseen: {error!r}. Please report it."
        self._observer.trouble("unforeseen", detail=repr(error))
        return Failed(stamp=stamp, times=times, reason=Failure.INTERNAL, detail=detail)


def _groups(images: Sequence[object]) -> list[list[int]]:
    """The places of the images that go together: those that need no preparing, and each other one alone.

    A photo that must be prepared enters a batch as soon as it is ready, and keeps no other waiting.
    """
    together: list[int] = []
    alone: list[list[int]] = []
    for at, image in enumerate(images):
        if isinstance(image, PreparedImage):
            together.append(at)
        else:
            alone.append([at])
    return [together, *alone] if together or not alone else alone
