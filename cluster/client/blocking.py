"""The client for code that is not asynchronous: its event loop runs in a thread of its own.

No finalizer waits here. Python may collect garbage in any thread at any moment, the client's own included; a
finalizer that waited for the event loop there would wait for itself.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Sequence
from types import AsyncGeneratorType, TracebackType
from typing import Any, Self, TypeVar, cast

from actors.faces import Health, Outcome, Priority
from actors.images import ImageSource
from cluster.client.face_client import CLOSED, FORKED, FaceClient
from cluster.client.parts import Parts
from cluster.client.pipeline import CLOSED_MEANWHILE
from cluster.client.status import ClientStatus
from cluster.errors import ClientNotUsable
from cluster.settings import Settings

Value = TypeVar("Value")

#: Seconds between two looks at a stream that a thread still reads.
_LOOK_AGAIN_S = 0.01


class BlockingFaceClient:
    """Finds faces by asking the detectors of a cluster; any thread may use it.

        with BlockingFaceClient(settings) as client:
            outcomes = client.detect(["photo.jpg"])

    It joins the cluster in the settings, or starts an embedded one. The cluster may end and come back, or be
    replaced by another one: the client finds it by itself. A client belongs to the process that made it: a
    server that forks its workers makes one in each of them, after the fork.

    Args:
        settings: None reads them (`load_settings`).
        wait: whether to wait until the cluster is joined and a detector is ready. Without it, the client is
            there at once, and joins in the background. Until then its images fail with the reason, or the
            CPU answers them, where the settings say so.

    Raises:
        ConfigurationError: a setting cannot be used.
        ClusterUnavailable: with `wait`, the cluster cannot be joined; says why.
        DetectorNotReady: with `wait`, no detector is ready; says why.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        wait: bool = True,
        _parts: Callable[[Settings], Parts] = Parts,
    ) -> None:
        self._client = FaceClient(settings, wait=wait, _parts=_parts)
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._is_closing = False
        #: Done when the thread has ended.
        self._ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        #: Streams that are read, or have been left and are being closed.
        self._streams: set[AsyncGenerator[Outcome, None]] = set()
        self._leaving: set[asyncio.Future[None]] = set()
        self._thread = threading.Thread(target=self._run, name="rayface", daemon=True)
        self._thread.start()
        try:
            self._wait(self._client.__aenter__())
        except BaseException:
            self.close()
            raise

    def detect(
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
            ClientNotUsable: the client is closed, or was made before a fork.
        """
        return self._wait(
            self._client.detect(
                images,
                priority=priority,
                deadline_s=deadline_s,
                score_threshold=score_threshold,
                max_faces=max_faces,
            )
        )

    def stream(
        self,
        images: Iterable[ImageSource],
        *,
        priority: Priority | str = Priority.BULK,
        deadline_s: float | None = None,
        score_threshold: float | None = None,
        max_faces: int | None = None,
    ) -> Generator[Outcome, None, None]:
        """Find the faces in any number of images, with bounded memory.

        Bulk images wait while no detector may be asked (`paused` says why), for `client.max_pause_s` at
        most. That time is not part of their deadline.

        Args:
            images: as for `detect`; read a few at a time, in a thread of their own, as outcomes are taken.
            priority: "bulk", or "interactive" (a person waits).
            deadline_s: seconds for each call; None takes the settings' `client.stream_deadline_s`.
            score_threshold: the least score of a face, 0..1; None takes `detector.score_threshold`.
            max_faces: faces kept for each image, best first; None takes `detector.max_faces`.

        Returns:
            Yields one outcome for each image, in order. Leaving it early takes no time: its calls are
            cancelled in the background.

        Raises:
            TypeError: `images` is one image and not several.
            ValueError: there is no such priority, or a threshold is out of its range.
            ClientNotUsable: the client is closed, or was made before a fork.
            Exception: what the iterable itself raises.
        """
        self._check()
        return self._followed(
            self._client.stream(
                images,
                priority=priority,
                deadline_s=deadline_s,
                score_threshold=score_threshold,
                max_faces=max_faces,
            )
        )

    @property
    def paused(self) -> str:
        """Why bulk images wait, in words; empty while they do not, or when the client is closed."""
        return self._client.paused

    def status(self) -> ClientStatus:
        """How this client, its circuits and its fallback are now.

        Raises:
            ClientNotUsable: the client is closed, or was made before a fork.
        """

        async def status() -> ClientStatus:
            return self._client.status()

        return self._wait(status())

    def health(self, wait_s: float = 0.0) -> Health:
        """How the detector is that would be asked next.

        Args:
            wait_s: how long to wait for its start, in seconds.

        Raises:
            DetectorNotReady: it does not answer, or there is none.
            ClientNotUsable: the client is closed, or was made before a fork.
        """
        return self._wait(self._client.health(wait_s))

    def close(self) -> None:
        """Leave the cluster; an embedded one ends. Closing twice does no harm.

        Calls of other threads end with `ClientNotUsable`. In a forked process this does nothing.
        """
        if os.getpid() != self._pid:
            return
        self._is_closing = True
        # RuntimeError: the loop has ended already.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        # In the client's own thread, perhaps in a finalizer, there is nobody to wait for but itself.
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Self:
        self._check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        async def until_closed() -> None:
            await self._stop.wait()
            await self._client.close()
            await self._end_streams()

        try:
            # The runner cancels what is left in the loop, which wakes the threads that wait for it.
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(until_closed())
        finally:
            self._is_closing = True
            self._ended.set_result(None)

    async def _end_streams(self) -> None:
        """Close what is left of the streams, after the client.

        The end of the event loop would close a stream and the generators that it is made of at the same time,
        and they close each other.
        """
        await asyncio.gather(*self._leaving, return_exceptions=True)
        for answers in tuple(self._streams):
            while cast(AsyncGeneratorType[Outcome, None], answers).ag_running:
                # A thread reads it, and is told that the client is closed.
                await asyncio.sleep(_LOOK_AGAIN_S)
            await answers.aclose()

    def _followed(self, answers: AsyncGenerator[Outcome, None]) -> Generator[Outcome, None, None]:
        """Give a stream's outcomes to this thread. Leaving it, or dropping it, waits for nothing."""
        ended = object()
        last: asyncio.Task[Any] | None = None

        async def following() -> Outcome | object:
            nonlocal last
            last = asyncio.current_task()
            return await anext(answers, ended)

        async def end() -> None:
            if last is not None:
                await asyncio.wait([last])
            await answers.aclose()
            self._streams.discard(answers)

        def leave() -> None:
            if self._is_closing:
                # The runner closes the stream; a task that begins now might never be waited for.
                return
            task = asyncio.ensure_future(end())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

        # Garbage together with this generator, the stream would be closed by the event loop as well.
        self._streams.add(answers)
        try:
            while isinstance(outcome := self._wait(following()), Outcome):
                yield outcome
        finally:
            # Perhaps this is a finalizer, in any thread or after a fork, so it must not wait.
            if os.getpid() == self._pid:
                # RuntimeError: the loop has ended, and the stream with it.
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(leave)

    def _wait(self, work: Coroutine[Any, Any, Value]) -> Value:
        """Do work in the client's event loop, and wait for it in this thread."""
        try:
            self._check()
            if threading.current_thread() is self._thread:
                raise ClientNotUsable(
                    "This client was called in its own thread, perhaps by a finalizer or a log handler. It "
                    "would wait for itself for ever. Call it from another thread."
                )
            try:
                future = asyncio.run_coroutine_threadsafe(work, self._loop)
            except RuntimeError:
                raise ClientNotUsable(CLOSED) from None
        except BaseException:
            work.close()
            raise
        try:
            # Work that came too late for the loop is never begun; then only the thread's end wakes us.
            either: tuple[concurrent.futures.Future[Any], ...] = (future, self._ended)
            concurrent.futures.wait(either, return_when=concurrent.futures.FIRST_COMPLETED)
        except BaseException:
            future.cancel()
            raise
        if self._is_closing and (future.cancelled() or not future.done()):
            raise ClientNotUsable(CLOSED_MEANWHILE)
        return future.result()

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise ClientNotUsable(FORKED)
        if self._is_closing:
            raise ClientNotUsable(CLOSED)
