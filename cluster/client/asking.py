"""Asks a detector for the prepared images of a call, and again for those that it answers with "not now"."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from actors.encoded_image import SentImage
from actors.faces import Failed, Failure, Priority
from cluster.client.call import Call, CallImage, client_stamp
from cluster.client.detector import Detector
from cluster.client.detector_pool import DetectorPool
from cluster.client.fitting import Fitting
from cluster.client.metrics import ClientMetrics
from cluster.client.patience import Patience
from cluster.client.wire import WireChoice, num_bytes
from cluster.errors import NOT_NOW, NotAnswered, Refused
from cluster.telemetry.tracing import Tracer

#: The shortest wait before images are asked for again.
_MIN_WAIT_S = 0.05


class Asking:
    """Puts questions to the detectors of a pool.

    Args:
        pool: chooses the detector, carries the question, and judges the answer.
        fitting: knows which model and which tensors the detectors have.
        metrics: told what is asked again.
        tracer: follows each attempt.
        wire: chooses how photos travel.
        encode: makes JPEGs of the photos of images, within threads; returns the seconds of one core.
        prepare_again: makes the photos of images small once more, until a moment on the clock.
        pause: waits until a detector may be asked, and returns the seconds that it has waited.
        clock: seconds; the pool's.
    """

    def __init__(
        self,
        pool: DetectorPool,
        fitting: Fitting,
        metrics: ClientMetrics,
        tracer: Tracer,
        clock: Callable[[], float],
        wire: WireChoice,
        encode: Callable[[Sequence[CallImage], Priority], Awaitable[float]],
        prepare_again: Callable[[Sequence[CallImage], Priority, float], Awaitable[None]],
        pause: Callable[[], Awaitable[float]],
    ) -> None:
        self._pool = pool
        self._fitting = fitting
        self._metrics = metrics
        self._tracer = tracer
        self._clock = clock
        self._wire = wire
        self._encode = encode
        self._prepare_again = prepare_again
        self._pause = pause

    async def until_answered(
        self, call: Call, images: Sequence[CallImage], until: float, patience: Patience
    ) -> None:
        """Give each image a detector's outcome, or the failure that says why it has none.

        Args:
            call: to which the images belong.
            images: prepared, and few enough for one question.
            until: when an answer is of no use any more, on the clock. A call that is held has later as much
                time as it had.
            patience: what to wait for, and not to fail at once.
        """
        asked = list(images)
        late = self._failed(Failure.DEADLINE, "The time was up before the photo was sent.")
        for image in asked:
            image.outcome = late
        while asked and self._clock() < until:
            if call.is_held:
                until += await self._pause()
            asked = await self._for_present_tensors(asked, call.priority, until)
            if not asked or not await self._once(call, asked, until, patience):
                return
            waits_s = [wait_s for image in asked if (wait_s := _wait_s(image)) is not None]
            asked = [image for image in asked if _wait_s(image) is not None]
            if not asked or self._clock() + max(waits_s) >= until:
                return
            self._metrics.asked_again(len(asked), call.priority)
            await asyncio.sleep(max(waits_s))

    async def _once(self, call: Call, images: Sequence[CallImage], until: float, patience: Patience) -> bool:
        """Ask once; returns whether a detector was asked."""
        priority, settings = call.priority, self._fitting.as_wanted(call.settings)
        try:
            with self._tracer.span("wait for detector"):
                detector = await self._pool.choose(until, patience, call.begun)
            photos = await self._to_send(images, detector, priority)
            with self._tracer.span("ask detector", detector=detector.name, num_images=len(photos)) as span:
                journey = detector.link.begin(self._clock(), num_bytes(photos))
                answers = await self._pool.ask(detector, photos, priority, until, span.traceparent, settings)
                detector.link.end(journey, self._clock(), answers)
                span.add(incarnation=answers[0].stamp.incarnation)
                span.outcomes(answers)
        except Refused as refused:
            # The pool has waited for as long as `patience` allows: this is no answer to ask again after.
            fault = refused.fault
            refusal = self._failed(fault.failure, fault.detail, refused.retry_after_s)
            for image in images:
                image.outcome = refusal
            return False
        except NotAnswered as error:
            answers = [self._failed(error.fault.failure, error.fault.detail)] * len(images)
        for image, answer in zip(images, answers, strict=True):
            image.outcome = answer
        return True

    async def _for_present_tensors(
        self, images: list[CallImage], priority: Priority, until: float
    ) -> list[CallImage]:
        """Make photos small again if detectors take other tensors by now; returns those that are ready."""
        stale = [each for each in images if each.photo is not None and self._fitting.is_stale(each.photo)]
        if not stale:
            return images
        await self._prepare_again(stale, priority, until)
        return [each for each in images if each.photo is not None]

    async def _to_send(
        self, images: Sequence[CallImage], detector: Detector, priority: Priority
    ) -> list[SentImage]:
        """The photos of images, as they travel to that detector."""
        photos = [image.photo for image in images if image.photo is not None]
        host, spare_cores = "", None
        if detector.health is not None:
            host, spare_cores = detector.health.host, detector.health.spare_cores
        if self._wire.choose(detector.link, host, photos, spare_cores) == "pixels":
            return list(photos)
        if fresh := [image for image in images if image.encoded is None]:
            took_s = await self._encode(fresh, priority)
            made = [image.encoded for image in fresh if image.encoded is not None]
            self._wire.encoded([image.photo for image in fresh if image.photo is not None], made, took_s)
        return [image.encoded for image in images if image.encoded is not None]

    def _failed(self, failure: Failure, detail: str, retry_after_s: float | None = None) -> Failed:
        stamp = client_stamp(self._pool.known_health())
        return Failed(stamp=stamp, reason=failure, detail=detail, retry_after_s=retry_after_s)


def _wait_s(image: CallImage) -> float | None:
    """How long a detector told us to wait with this image, in seconds; None if it did not."""
    outcome = image.outcome
    if isinstance(outcome, Failed) and outcome.reason in NOT_NOW and outcome.retry_after_s is not None:
        return max(_MIN_WAIT_S, outcome.retry_after_s)
    return None
