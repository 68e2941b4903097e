"""`FaceClient`: finds faces by asking the detectors of a cluster. Its last part is the story of one call.

A call goes through these stages, in this order: admission (room for its images), preprocessing (photos made
small), a detector's answer, and the CPU's in place of a failure, if the settings say so.

Nothing is retried here: Ray repeats a call whose process died (`max_task_retries`). "Not now" is flow control
and no failure: those images got no answer, and are asked for again within the deadline (`asking`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, Self

from actors.faces import Failed, Failure, Health, Outcome, Priority
from actors.images import ImageSource
from cluster.client.call import Call, client_stamp, in_questions, refuse_one
from cluster.client.parts import Parts
from cluster.client.patience import Patience
from cluster.client.pipeline import CLOSED_MEANWHILE, pipelined
from cluster.client.status import ClientStatus
from cluster.errors import ClientNotUsable, DetectorNotReady, Full, Refused
from cluster.settings import Settings, load_settings
from cluster.telemetry.tracing import Span

CLOSED = "This client is closed. Make a new one."
FORKED = "This client was made in another process, before a fork. Make one in each process, after it."


class FaceClient:
    """Finds faces by asking the detectors of a cluster; for asyncio.

    There are two ways to make one. Both join the cluster in the settings, or start an embedded one:

        async with FaceClient(settings) as client:
            outcomes = await client.detect(["photo.jpg"])

        client = await FaceClient.connect(settings)
        ...
        await client.close()

    The cluster may end and come back, or be replaced by another one: the client finds it by itself. A client
    belongs to the event loop in which it was opened.

    Args:
        settings: None reads them (`load_settings`).
        wait: whether opening waits until the cluster is joined and a detector is ready. Without it, the
            client is there at once, and joins in the background. Until then its images fail with the reason,
            or the CPU answers them, where the settings say so.

    Raises:
        ConfigurationError: a setting cannot be used.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        wait: bool = True,
        _parts: Callable[[Settings], Parts] = Parts,
    ) -> None:
        self._settings = settings or load_settings()
        self._waits = wait
        self._make_parts = _parts
        self._pid = os.getpid()
        self._state: Literal["new", "open", "closed"] = "new"
        # Set when it is opened.
        self._loop: asyncio.AbstractEventLoop
        self._parts: Parts
        #: The tasks that are within a call now, each with a future that is done when the call has ended.
        self._calls: dict[asyncio.Task[Any], asyncio.Future[None]] = {}
        self._closed: asyncio.Future[None]
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, settings: Settings | None = None, *, wait: bool = True) -> Self:
        """Make a client and open it. The caller closes it, with `close` or `async with`.

        Args:
            settings: None reads them (`load_settings`).
            wait: as for the class.

        Raises:
            ConfigurationError: a setting cannot be used.
            ClusterUnavailable: with `wait`, the cluster cannot be joined; says why.
            DetectorNotReady: with `wait`, no detector is ready; says why.
        """
        client = cls(settings, wait=wait)
        await client._open()
        return client

    async def __aenter__(self) -> Self:
        if self._state == "new":
            await self._open()
        self._check()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def detect(
        self,
        images: Sequence[ImageSource],
        *,
        priority: Priority | str = Priority.INTERACTIVE,
        deadline_s: float | None = None,
        score_threshold: float | None = None,
        max_faces: int | None = None,
    ) -> list[Outcome]:
        """Find the faces in each image.

        Args:
            images: each an encoded photo (bytes), the path of one, a binary file that holds one, a PIL
                image, or its pixels as uint8[height, width, 3] in BGR order. Any number: they travel in calls
                of `client.images_per_call`.
            priority: "interactive" (a person waits) or "bulk".
            deadline_s: seconds for all of them together; None takes the settings' `client.deadline_s`.
            score_threshold: the least score of a face, 0..1; None takes `detector.score_threshold`.
            max_faces: faces kept for each image, best first; None takes `detector.max_faces`.

        Returns:
            One outcome for each image, in order. A fault of an image, a device or the cluster is an outcome,
            and is not raised.

        Raises:
            TypeError: `images` is one image and not a sequence of them.
            ValueError: there is no such priority, or a threshold is out of its range.
            ClientNotUsable: the client is not open, or belongs to another event loop or process.
        """
        self._check()
        refuse_one(images)
        wanted = Priority(priority)
        seconds = self._settings.client.deadline_s if deadline_s is None else deadline_s
        deadline = self._loop.time() + seconds
        settings = self._parts.fitting.of_call(score_threshold, max_faces)

        async def call(some: Sequence[ImageSource]) -> list[Outcome]:
            return await self._call(Call.of(some, wanted, deadline, self._loop.time(), settings))

        with self._span(len(images), wanted, seconds) as span:
            if 0 < len(images) <= self._settings.client.images_per_call:
                outcomes = await self._until_closed(call(images))
            else:
                outcomes = [outcome async for outcome in self._pipelined(images, call)]
            span.outcomes(outcomes)
        return outcomes

    def stream(
        self,
        images: Iterable[ImageSource] | AsyncIterable[ImageSource],
        *,
        priority: Priority | str = Priority.BULK,
        deadline_s: float | None = None,
        score_threshold: float | None = None,
        max_faces: int | None = None,
    ) -> AsyncGenerator[Outcome, None]:
        """Find the faces in any number of images, with bounded memory.

        Bulk images wait while no detector may be asked (`paused` says why), for `client.max_pause_s` at
        most. That time is not part of their deadline.

        Args:
            images: as for `detect`; read a few at a time, as outcomes are taken.
            priority: "bulk", or "interactive" (a person waits).
            deadline_s: seconds for each call; None takes the settings' `client.stream_deadline_s`.
            score_threshold: the least score of a face, 0..1; None takes `detector.score_threshold`.
            max_faces: faces kept for each image, best first; None takes `detector.max_faces`.

        Returns:
            Yields one outcome for each image, in order. Close it (`aclose`) to leave it early.

        Raises:
            TypeError: `images` is one image and not several.
            ValueError: there is no such priority, or a threshold is out of its range.
            ClientNotUsable: the client is not open, or belongs to another event loop or process.
            Exception: what the iterable itself raises.
        """
        self._check_state()
        refuse_one(images)
        wanted = Priority(priority)
        seconds = self._settings.client.stream_deadline_s if deadline_s is None else deadline_s
        settings = self._parts.fitting.of_call(score_threshold, max_faces)

        async def call(some: Sequence[ImageSource]) -> list[Outcome]:
            if is_held := wanted is Priority.BULK and not self._parts.fallback.serves(wanted):
                await self._parts.pause.wait()
            now = self._loop.time()
            with self._span(len(some), wanted, seconds) as span:
                held = Call.of(some, wanted, now + seconds, now, settings, is_held=is_held)
                outcomes = await self._call(held)
                span.outcomes(outcomes)
            return outcomes

        return self._pipelined(images, call)

    @property
    def paused(self) -> str:
        """Why bulk images wait, in words; empty while they do not, or while the client is not open."""
        return self._parts.pause.why if self._state == "open" else ""

    def status(self) -> ClientStatus:
        """How this client, its circuits and its fallback are now.

        Raises:
            ClientNotUsable: the client is not open, or belongs to another event loop or process.
        """
        self._check()
        return self._parts.status()

    async def health(self, wait_s: float = 0.0) -> Health:
        """How the detector is that would be asked next.

        Args:
            wait_s: how long to wait for its start, in seconds.

        Raises:
            DetectorNotReady: it does not answer, or there is none.
            ClientNotUsable: the client is not open, or belongs to another event loop or process.
        """
        self._check()
        pool = self._parts.pool
        try:
            detector = await pool.choose(self._loop.time() + wait_s, Patience.NOT_NOW)
        except Refused as refused:
            if not pool.detectors:
                raise DetectorNotReady(refused.fault.detail, refused.fault.failure) from refused
            detector = next(iter(pool.detectors.values()))
        return await pool.health(detector.name, wait_s, wait_s + 30.0)

    async def close(self) -> None:
        """Leave the cluster; an embedded one ends. Closing twice does no harm.

        Calls under way end with `ClientNotUsable`.

        Raises:
            ClientNotUsable: the client is open in another event loop, which has to close it.
        """
        if os.getpid() != self._pid or self._state == "new" or (self._closing and self._closing.done()):
            # In a forked process there is nothing to close: everything belongs to the first one.
            self._state = "closed"
            return
        self._check_loop()
        if self._closing is None:
            self._state = "closed"
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    def _span(self, num_images: int, priority: Priority, deadline_s: float) -> Span:
        return self._parts.tracer.span(
            "rayface.detect", num_images=num_images, priority=str(priority), deadline_s=float(deadline_s)
        )

    def _pipelined(
        self,
        images: Iterable[ImageSource] | AsyncIterable[ImageSource],
        call: Callable[[Sequence[ImageSource]], Awaitable[list[Outcome]]],
    ) -> AsyncGenerator[Outcome, None]:
        """Make the calls; closing the client ends them, whatever they wait for."""

        async def until_closed(some: Sequence[ImageSource]) -> list[Outcome]:
            self._check()
            return await self._until_closed(call(some))

        client = self._settings.client
        return pipelined(
            images,
            until_closed,
            images_per_call=client.images_per_call,
            max_calls=client.max_calls_in_flight,
            closed=self._closed,
        )

    async def _until_closed(self, call: Awaitable[list[Outcome]]) -> list[Outcome]:
        """Wait for a call in the task that makes it; closing the client ends the call, and not the task."""
        task = asyncio.current_task()
        assert task is not None
        ended = self._calls[task] = self._loop.create_future()
        try:
            return await call
        except asyncio.CancelledError:
            if self._state == "closed" and task.uncancel() == 0:
                raise ClientNotUsable(CLOSED_MEANWHILE) from None
            raise
        finally:
            del self._calls[task]
            ended.set_result(None)

    async def _call(self, call: Call) -> list[Outcome]:
        await self._answer(call)
        self._parts.metrics.call_ended(call.outcomes, call.priority, self._loop.time() - call.begun)
        return call.outcomes

    async def _answer(self, call: Call) -> None:
        """Give every image of a call its outcome."""
        try:
            async with contextlib.AsyncExitStack() as room:
                await self._admit(call, room)
                await self._prepare(call)
                await self._ask_detectors(call)
                await self._ask_cpu(call)
        except Full:
            num = self._parts.admission.num_waiting
            full = f"{num} calls of this client wait already; ask again in 1 s."
            call.settle(self._failed(Failure.BUSY, full, 1.0))
        except TimeoutError:
            late = "The time was up before there was room to prepare the photo; it was not sent."
            call.settle(self._failed(Failure.DEADLINE, late))
        finally:
            self._parts.preprocessor.free(call)

    async def _admit(self, call: Call, room: contextlib.AsyncExitStack) -> None:
        """Wait until this client has room for the call's images; `room` gives it back at the end."""
        num_images = len(call.images)
        with self._parts.tracer.span("wait for room", num_images=num_images):
            own = self._parts.admission.room(num_images, call.priority, call.deadline)
            await room.enter_async_context(own)

    async def _prepare(self, call: Call) -> None:
        """Make the photos small; an image that cannot be searched gets its outcome here."""
        with self._parts.tracer.span("prepare", num_images=len(call.images)) as span:
            await self._parts.preprocessor.prepare(call)
            span.outcomes(call.outcomes)

    async def _ask_detectors(self, call: Call) -> None:
        """Ask for the prepared images, for as long as the caller or the fallback's policy waits."""
        may_fall_back = self._parts.fallback.serves(call.priority)
        patience_s = self._parts.fallback.patience_s if may_fall_back else None
        until = call.deadline if patience_s is None else min(call.deadline, self._loop.time() + patience_s)
        patience = Patience.of(call.priority, may_fall_back=may_fall_back, is_timed=patience_s is not None)
        ask = self._parts.asking.until_answered
        asked = [ask(call, each, until, patience) for each in in_questions(call.prepared)]
        # Nearly always it is one; a task of its own would cost as much as packing the call.
        await (asked[0] if len(asked) == 1 else asyncio.gather(*asked))

    async def _ask_cpu(self, call: Call) -> None:
        """Let the CPU stand in for failures, where the policy says so."""
        if self._parts.fallback.serves(call.priority):
            await self._parts.fallback.stand_in(call, self._parts.pool.refusal())

    def _failed(self, failure: Failure, detail: str, retry_after_s: float | None = None) -> Failed:
        """The outcome of an image that no detector has answered."""
        stamp = client_stamp(self._parts.pool.known_health())
        return Failed(stamp=stamp, reason=failure, detail=detail, retry_after_s=retry_after_s)

    async def _open(self) -> None:
        self._loop = asyncio.get_running_loop()
        parts = self._make_parts(self._settings)
        try:
            await parts.open(wait=self._waits)
            if self._state != "new":
                self._check_state()
                raise ClientNotUsable("This client was opened twice at once. Open it once, and share it.")
        except BaseException:
            await parts.close()
            raise
        self._closed = self._loop.create_future()
        self._parts, self._state = parts, "open"

    async def _close(self) -> None:
        # Ends the streams that wait for their source; those have no call to cancel.
        self._closed.set_result(None)
        for task in self._calls:
            task.cancel()
        await asyncio.gather(*self._calls.values())
        await self._parts.close()

    def _check(self) -> None:
        self._check_state()
        self._check_loop()

    def _check_state(self) -> None:
        if os.getpid() != self._pid:
            raise ClientNotUsable(FORKED)
        if self._state == "closed":
            raise ClientNotUsable(CLOSED)
        if self._state == "new":
            raise ClientNotUsable(
                "This client is not open yet. Use `async with FaceClient(...) as client:`, or "
                "`client = await FaceClient.connect(...)`."
            )

    def _check_loop(self) -> None:
        # In a plain thread no event loop is running, and that is another one, too.
        with contextlib.suppress(RuntimeError):
            if asyncio.get_running_loop() is self._loop:
                return
        raise ClientNotUsable(
            "This client belongs to the event loop in which it was opened, and this is another one or none. "
            "Make one client in each event loop, or use BlockingFaceClient, which any thread may use."
        )
