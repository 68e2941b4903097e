"""`FaceClient`: the story of one call. Prepare → circuit → detector → deadline → outcome, or else the CPU.

Nothing is repeated here: Ray repeats a call whose process died (`max_task_retries`). Being told `busy` is
flow control and no failure: those images were not looked at, and are asked for again within the deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, Self

from actors.faces import Failed, Failure, Health, Outcome, Priority
from actors.images import ImageSource, PreparedImage
from cluster.background import in_thread
from cluster.client.admission import Admission
from cluster.client.chunks import grouped
from cluster.client.cpu_fallback import CpuFallback
from cluster.client.detector_pool import DetectorPool
from cluster.client.metrics import ClientMetrics
from cluster.client.preprocessing import Preprocessor, in_calls
from cluster.client.registry import ClientRegistry
from cluster.client.status import ClientStatus
from cluster.connection.connection import Connection
from cluster.errors import DetectorNotReady, Full, NotAnswered, Refused
from cluster.settings import Settings, load_settings
from cluster.telemetry.rate_limit import rate_limited_log
from cluster.telemetry.setup import tracer_of
from cluster.telemetry.tracing import OFF, Span, Tracer

#: What a call that was told to wait, waits at least.
_LEAST_WAIT_S = 0.05


class FaceClient:
    """Asks the detectors; made by `connect`, ended by `close` (or `async with`)."""

    def __init__(
        self,
        connection: Connection,
        pool: DetectorPool,
        settings: Settings,
        log: logging.Logger,
        tracer: Tracer = OFF,
    ) -> None:
        self._connection = connection
        self._pool = pool
        self._settings = settings
        self._log = log
        self._tracer = tracer
        self._loop = asyncio.get_running_loop()
        self._preprocessor = Preprocessor(settings, pool.known_health)
        self._admission = Admission(settings.client.max_images_in_flight, settings.client.max_waiting_calls)
        self._fallback = CpuFallback(settings.fallback, settings.detector, self._loop.time, tracer)
        self._paused: dict[object, str] = {}
        self._registry = ClientRegistry(connection, pool, self.status)
        self._metrics = ClientMetrics(connection, self.status)

    @classmethod
    async def connect(cls, settings: Settings | None = None, *, wait: bool = True) -> Self:
        """Join the cluster in the settings (or start an embedded one) and wait for a ready detector.

        The cluster may end, and come back, or be another one afterwards: the client finds it by itself.

        Args:
            settings: None reads them (`load_settings`).
            wait: without it, the client is there at once, and joins and waits in the background; images are
                answered with what is missing meanwhile, or by the CPU where the settings say so.

        Raises:
            ConfigurationError: a setting cannot be used.
            ClusterUnavailable, DetectorNotReady: with `wait`, nothing can be asked; says why.
        """
        settings = settings or load_settings()
        log = rate_limited_log("rayface.client")
        tracer = tracer_of(settings.tracing, "rayface-client")
        connection = Connection(settings, log)
        pool = DetectorPool(connection, settings.circuit, log)
        made = cls(connection, pool, settings, log, tracer)
        try:
            await connection.open(wait=wait)
            if wait:
                await pool.start(settings.cluster.start_timeout_s)
        except BaseException:
            await made.close()
            raise
        pool.watch()
        made._registry.open()
        made._metrics.open()
        return made

    async def detect(
        self,
        images: Sequence[ImageSource],
        *,
        priority: Priority | str = Priority.INTERACTIVE,
        deadline_s: float | None = None,
    ) -> list[Outcome]:
        """Find the faces in each image.

        Args:
            images: each an encoded photo (bytes), the path of one, or its pixels as uint8[height, width, 3]
                in BGR order. Any number: they travel in calls of `images_per_call`.
            priority: "interactive" (a person waits) or "bulk".
            deadline_s: seconds for all of them together; None takes the settings'.

        Returns:
            One outcome an image, in order. No fault of an image, a device or the cluster is raised.

        Raises:
            TypeError: `images` is one image and not a sequence of them.
            ValueError: no such priority.
        """
        if isinstance(images, bytes | bytearray | memoryview | str | os.PathLike) or hasattr(images, "dtype"):
            raise TypeError("Pass a list of images, even for one: detect([image]).")
        wanted = Priority(priority)
        seconds = self._settings.client.deadline_s if deadline_s is None else deadline_s
        deadline = self._loop.time() + seconds

        async def call(some: Sequence[ImageSource]) -> list[Outcome]:
            return await self._call(some, wanted, deadline)

        with self._span(len(images), wanted, seconds) as span:
            outcomes = [outcome async for outcome in self._answers(images, call)]
            span.outcomes(outcomes)
        return outcomes

    def stream(
        self,
        images: Iterable[ImageSource] | AsyncIterable[ImageSource],
        *,
        priority: Priority | str = Priority.BULK,
        deadline_s: float | None = None,
    ) -> AsyncIterator[Outcome]:
        """Find the faces in any number of images, with bounded memory: yields one outcome an image, in order.

        Bulk images pause while no detector may be asked (`paused` says why), for `client.max_pause_s` at
        most; that is no part of their deadline.

        Args:
            images: as for `detect`; taken a few at a time, as answers are taken from here.
            priority: "bulk", or "interactive" (a person waits).
            deadline_s: seconds for each call; None takes the settings' `stream_deadline_s`.

        Raises:
            ValueError: no such priority.
            Exception: whatever the iterable itself raises.
        """
        wanted = Priority(priority)
        seconds = self._settings.client.stream_deadline_s if deadline_s is None else deadline_s

        async def call(some: Sequence[ImageSource]) -> list[Outcome]:
            if wanted is Priority.BULK and not self._fallback.serves(wanted):
                await self._pause()
            with self._span(len(some), wanted, seconds) as span:
                outcomes = await self._call(some, wanted, self._loop.time() + seconds)
                span.outcomes(outcomes)
            return outcomes

        return self._answers(images, call)

    @property
    def paused(self) -> str:
        """Why bulk images wait, in words; empty while they do not."""
        return next(iter(self._paused.values()), "")

    def status(self) -> ClientStatus:
        """How this client, its circuits and its fallback are."""
        now = self._loop.time()
        return ClientStatus(
            address=self._connection.address,
            why_not="" if self._connection.address else self._connection.why_not,
            paused=self.paused,
            num_images=self._admission.num_taken,
            num_waiting_calls=self._admission.num_waiting,
            detectors=tuple(each.status(now) for each in self._pool.detectors.values()),
            fallback=dict(self._fallback.num_by_reason),
            num_fallback_refused=self._fallback.num_refused,
            num_connections=self._connection.num_joined,
            outcomes=dict(self._metrics.outcomes),
        )

    async def health(self, wait_s: float = 0.0) -> Health:
        """How the detector is that would be asked next.

        Raises:
            DetectorNotReady: it does not answer, or there is none.
        """
        try:
            detector = await self._pool.choose(self._loop.time() + wait_s, patient=False)
        except Refused as refused:
            if not self._pool.detectors:
                raise DetectorNotReady(refused.fault.detail, refused.fault.failure) from refused
            detector = next(iter(self._pool.detectors.values()))
        return await self._pool.health(detector.name, wait_s, wait_s + 30.0)

    async def close(self) -> None:
        """End what `connect` began: the threads, the connection, and the embedded Ray if there is one."""
        await self._registry.close()
        await self._metrics.close()
        await self._pool.close()
        await self._fallback.close()
        self._preprocessor.close()
        await self._connection.close()
        await in_thread(self._tracer.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _span(self, num_images: int, priority: Priority, deadline_s: float) -> Span:
        return self._tracer.span(
            "rayface.detect", num_images=num_images, priority=str(priority), deadline_s=float(deadline_s)
        )

    async def _answers(
        self,
        images: Iterable[ImageSource] | AsyncIterable[ImageSource],
        call: Callable[[Sequence[ImageSource]], Any],
    ) -> AsyncIterator[Outcome]:
        """The calls in flight are a queue of fixed length; what its oldest brings is given at once.

        The next images are waited for meanwhile, so that a source that stalls holds no answer back.
        """
        most = self._settings.client.max_calls_in_flight
        calls: deque[asyncio.Task[list[Outcome]]] = deque()
        groups = grouped(images, self._settings.client.images_per_call)
        taking: asyncio.Task[list[ImageSource]] | None = None
        ended = False
        try:
            while calls or not ended:
                if taking is None and not ended and len(calls) < most:
                    taking = asyncio.create_task(anext(groups, []))
                await asyncio.wait(
                    {*([taking] if taking else ()), *islice(calls, 1)}, return_when="FIRST_COMPLETED"
                )
                if taking is not None and taking.done():
                    taken, taking = taking.result(), None
                    ended = not taken
                    if taken:
                        calls.append(asyncio.create_task(call(taken)))
                while calls and calls[0].done():
                    for outcome in calls.popleft().result():
                        yield outcome
        finally:
            under_way = [*calls, *([taking] if taking else ())]
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
            await groups.aclose()

    async def _call(
        self, images: Sequence[ImageSource], priority: Priority, deadline: float
    ) -> list[Outcome]:
        begun = self._loop.time()
        outcomes = await self._outcomes(images, priority, deadline)
        self._metrics.call(outcomes, priority, self._loop.time() - begun)
        return outcomes

    async def _outcomes(
        self, images: Sequence[ImageSource], priority: Priority, deadline: float
    ) -> list[Outcome]:
        """The story of one call: a place, small photos, a detector's answer, or else the CPU's."""
        try:
            async with contextlib.AsyncExitStack() as stay:
                with self._tracer.span("wait for room", num_images=len(images)):
                    await stay.enter_async_context(self._admission.room(len(images), priority, deadline))
                with self._tracer.span("prepare", num_images=len(images)) as span:
                    outcomes = await self._preprocessor.prepared(images, priority, deadline)
                    span.outcomes([each for each in outcomes if isinstance(each, Outcome)])
                places = [n for n, each in enumerate(outcomes) if isinstance(each, PreparedImage)]
                photos = [each for each in outcomes if isinstance(each, PreparedImage)]
                answers: list[Outcome] = await self._asked(photos, priority, deadline)
        except Full:
            waiting = f"{self._admission.num_waiting} calls of this client wait already; ask again in 1 s."
            return [self._preprocessor.failed(Failure.BUSY, waiting, 1.0)] * len(images)
        except TimeoutError:
            late = "The time was up before there was room to prepare the photo; it was not sent."
            return [self._preprocessor.failed(Failure.DEADLINE, late)] * len(images)
        for place, answer in zip(places, answers, strict=True):
            outcomes[place] = answer
        return outcomes  # type: ignore[return-value]  # every photo has been exchanged for its outcome

    async def _asked(
        self, photos: Sequence[PreparedImage], priority: Priority, deadline: float
    ) -> list[Outcome]:
        """What a detector says, within its patience; what it did not, the CPU says if the policy is so."""
        by_cpu = self._fallback.serves(priority)
        patience_s = self._fallback.patience_s if by_cpu else None
        until = deadline if patience_s is None else min(deadline, self._loop.time() + patience_s)
        patient = priority is Priority.BULK and not by_cpu
        calls = in_calls(photos)
        parts = await asyncio.gather(*(self._by_detector(each, priority, until, patient) for each in calls))
        outcomes = [outcome for part in parts for outcome in part]
        if not by_cpu:
            return outcomes
        is_open = self._pool.refusal() is not None
        return await self._fallback.instead(photos, outcomes, priority, deadline, circuits_are_open=is_open)

    async def _by_detector(
        self, photos: Sequence[PreparedImage], priority: Priority, until: float, patient: bool
    ) -> list[Outcome]:
        """Ask the detector that is chosen for it, and once more for what was told to wait."""
        outcomes: list[Outcome] = [self._preprocessor.late()] * len(photos)
        asked = list(range(len(photos)))
        while asked and self._loop.time() < until:
            answers = await self._attempt([photos[each] for each in asked], priority, until, patient)
            for place, answer in zip(asked, answers, strict=True):
                outcomes[place] = answer
            waits = {place: wait for place in asked if (wait := _wait_s(outcomes[place])) is not None}
            asked, wait_s = list(waits), max(waits.values(), default=0.0)
            if self._loop.time() + wait_s >= until:
                break
            if asked:
                self._metrics.asked_again(len(asked), priority)
                await asyncio.sleep(wait_s)
        return outcomes

    async def _attempt(
        self, photos: Sequence[PreparedImage], priority: Priority, until: float, patient: bool
    ) -> Sequence[Outcome]:
        """What the detector that is chosen says, or why there is no answer."""
        try:
            with self._tracer.span("wait for detector"):
                detector = await self._pool.choose(until, patient=patient)
            with self._tracer.span("ask detector", detector=detector.name, num_images=len(photos)) as span:
                answers = await self._pool.ask(detector, photos, priority, until, span.traceparent)
                span.add(incarnation=answers[0].stamp.incarnation)
                span.outcomes(answers)
            return answers
        except Refused as refused:
            cause = refused.fault
            return [self._preprocessor.failed(cause.failure, cause.detail, refused.retry_after_s)] * len(
                photos
            )
        except NotAnswered as error:
            return [self._preprocessor.failed(error.fault.failure, error.fault.detail)] * len(photos)

    async def _pause(self) -> None:
        """Bulk images wait here while there is nobody to be asked; a scan would rather wait than fail."""
        until = self._loop.time() + self._settings.client.max_pause_s
        mark = object()
        try:
            while (refusal := self._pool.refusal()) is not None:
                if (since := self._pool.refused_since) is not None:
                    until = min(until, since + self._settings.client.max_pause_s)
                if self._loop.time() >= until:
                    return
                self._paused[mark] = refusal.fault.detail
                self._log.warning("Bulk images wait for a detector: %s", refusal.fault.detail)
                await self._pool.changed(min(1.0, until - self._loop.time()))
        finally:
            if self._paused.pop(mark, None) and not self._paused:
                self._log.info("Bulk images go on.")


def _wait_s(outcome: Outcome) -> float | None:
    """How long a detector told us to wait with this image; None if it did not."""
    if isinstance(outcome, Failed) and outcome.reason is Failure.BUSY and outcome.retry_after_s is not None:
        return max(_LEAST_WAIT_S, outcome.retry_after_s)
    return None
