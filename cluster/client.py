"""`FaceClient`: the story of one call. Prepare here, ask there, one outcome an image, in order, in time.

Nothing is repeated here: Ray repeats a call whose process died (`max_task_retries`). Being told `busy` is
flow control and no failure: those images were not looked at, and are asked for again within the deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Self

from actors import images as photos
from actors.errors import ImageFault
from actors.face_detector import num_cores
from actors.faces import Failed, Failure, Health, Outcome, Priority, Rejected, Stamp, State, Times
from actors.images import ImageSource, Limits, PreparedImage
from cluster import placement
from cluster.errors import DetectorNotReady, fault_of
from cluster.settings import Settings, load_settings

#: An answer that is due when the deadline is up still has to travel.
_GRACE_S = 0.5


class FaceClient:
    """Asks the detector; made by `connect`, ended by `close` (or `async with`)."""

    def __init__(
        self, handle: placement.Handle, health: Health, settings: Settings, leave: Callable[[], None]
    ) -> None:
        self._handle = handle
        self._settings = settings
        self._leave = leave
        self._shapes = health.shapes
        self._stamp = Stamp("client", health.stamp.model, health.stamp.incarnation)
        self._limits = Limits(settings.detector.max_image_pixels, settings.detector.max_image_bytes)
        self._preparers = ThreadPoolExecutor(
            settings.client.num_prepare_threads or num_cores(), thread_name_prefix="rayface-prepare"
        )

    @classmethod
    async def connect(cls, settings: Settings | None = None) -> Self:
        """Join the cluster in the settings (or start an embedded one) and wait for a ready detector.

        Raises:
            ConfigurationError, ClusterUnavailable, DetectorNotReady: nothing can be asked; says why.
        """
        settings = settings or load_settings()
        leave = await asyncio.to_thread(placement.join_or_start, settings)
        try:
            handle = await asyncio.to_thread(placement.place, settings)
            health = await _ready(handle, settings)
        except BaseException:
            await asyncio.to_thread(leave)
            raise
        return cls(handle, health, settings, leave)

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
        seconds = self._settings.client.deadline_s if deadline_s is None else deadline_s
        deadline = asyncio.get_running_loop().time() + seconds
        answers = self._answers(images, Priority(priority), lambda: deadline)
        return [outcome async for outcome in answers]

    def stream(
        self,
        images: Iterable[ImageSource] | AsyncIterable[ImageSource],
        *,
        priority: Priority | str = Priority.BULK,
        deadline_s: float | None = None,
    ) -> AsyncIterator[Outcome]:
        """Find the faces in any number of images, with bounded memory: yields one outcome an image, in order.

        Args:
            images: as for `detect`; taken a few at a time, as answers are taken from here.
            priority: "bulk", or "interactive" (a person waits).
            deadline_s: seconds for each call; None takes the settings' `stream_deadline_s`.

        Raises:
            ValueError: no such priority.
            Exception: whatever the iterable itself raises.
        """
        seconds = self._settings.client.stream_deadline_s if deadline_s is None else deadline_s
        return self._answers(images, Priority(priority), lambda: asyncio.get_running_loop().time() + seconds)

    async def health(self, wait_s: float = 0.0) -> Health:
        """How the detector is.

        Raises:
            DetectorNotReady: it does not answer.
        """
        return await _health(self._handle, wait_s)

    async def close(self) -> None:
        """End what `connect` began: the threads, and the embedded Ray if there is one."""
        self._preparers.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._leave)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _answers(
        self,
        images: Iterable[ImageSource] | AsyncIterable[ImageSource],
        priority: Priority,
        deadline: Callable[[], float],
    ) -> AsyncIterator[Outcome]:
        """The calls in flight are a queue of fixed length; its oldest is answered before another begins."""
        calls: deque[asyncio.Task[list[Outcome]]] = deque()
        try:
            async for taken in _grouped(images, self._settings.client.images_per_call):
                calls.append(asyncio.create_task(self._call(taken, priority, deadline())))
                while calls and (calls[0].done() or len(calls) >= self._settings.client.max_calls_in_flight):
                    for outcome in await calls.popleft():
                        yield outcome
            while calls:
                for outcome in await calls.popleft():
                    yield outcome
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    async def _call(
        self, images: Sequence[ImageSource], priority: Priority, deadline: float
    ) -> list[Outcome]:
        """Prepare → ask → outcomes, for the images of one call."""
        prepared = await asyncio.gather(*(self._prepared(image, deadline) for image in images))
        to_send = {place: each for place, each in enumerate(prepared) if isinstance(each, PreparedImage)}
        outcomes: list[Any] = list(prepared)
        loop = asyncio.get_running_loop()
        asked = list(to_send)
        while asked:
            answers = await self._ask([to_send[place] for place in asked], priority, deadline)
            for place, answer in zip(asked, answers, strict=True):
                outcomes[place] = answer
            waits = [(place, outcomes[place].retry_after_s) for place in asked if _is_busy(outcomes[place])]
            wait_s = max((seconds for _, seconds in waits), default=0.0)
            if loop.time() + wait_s >= deadline:
                break
            asked = [place for place, _ in waits]
            await asyncio.sleep(wait_s)
        return outcomes

    async def _prepared(self, image: ImageSource, deadline: float) -> PreparedImage | Outcome:
        loop = asyncio.get_running_loop()
        max_enlargement = self._settings.detector.max_enlargement
        work = partial(photos.prepare, image, self._shapes, self._limits, max_enlargement)
        begun = loop.time()
        try:
            async with asyncio.timeout_at(deadline):
                return await loop.run_in_executor(self._preparers, work)
        except ImageFault as fault:
            spent = Times(prepare=(loop.time() - begun) * 1000)
            return Rejected(stamp=self._stamp, times=spent, reason=fault.reason, detail=fault.detail)
        except TimeoutError:
            return self._failed(
                Failure.DEADLINE, "The time was up before the photo was prepared; it was not sent."
            )
        except Exception as error:
            return self._failed(
                Failure.INTERNAL, f"Preparing the photo failed in an unforeseen way: {error!r}."
            )

    async def _ask(
        self, images: Sequence[PreparedImage], priority: Priority, deadline: float
    ) -> Sequence[Outcome]:
        import ray

        left_s = deadline - asyncio.get_running_loop().time()
        if left_s <= 0:
            late = self._failed(Failure.DEADLINE, "The time was up before the photo was sent.")
            return [late] * len(images)
        answer = None
        try:
            answer = self._handle.detect.remote(images, priority=priority.value, deadline_s=left_s)
            async with asyncio.timeout(left_s + _GRACE_S):
                outcomes: list[Outcome] = await answer
            return outcomes
        except asyncio.CancelledError:
            _cancel(ray, answer)
            raise
        except Exception as error:
            if isinstance(error, TimeoutError):
                _cancel(ray, answer)
            fault = fault_of(error)
            return [self._failed(fault.failure, fault.advice)] * len(images)

    def _failed(self, failure: Failure, detail: str) -> Failed:
        return Failed(stamp=self._stamp, reason=failure, detail=detail)


async def _grouped(
    images: Iterable[ImageSource] | AsyncIterable[ImageSource], most: int
) -> AsyncIterator[list[ImageSource]]:
    """Groups of 1, 2, 4 … up to `most`, so that the first answer comes early.

    A plain iterable is advanced in a thread of its own, because it may block (a list from a pipe, a slow
    disk).
    """
    size = 1
    if isinstance(images, AsyncIterable):
        group: list[ImageSource] = []
        async for image in images:
            group.append(image)
            if len(group) >= size:
                yield group
                group, size = [], min(most, size * 2)
        if group:
            yield group
        return
    iterator = iter(images)
    with ThreadPoolExecutor(1, thread_name_prefix="rayface-source") as reader:
        loop = asyncio.get_running_loop()
        while group := await loop.run_in_executor(reader, lambda: list(islice(iterator, size))):  # noqa: B023
            yield group
            size = min(most, size * 2)


def _is_busy(outcome: Outcome) -> bool:
    return (
        isinstance(outcome, Failed) and outcome.reason is Failure.BUSY and outcome.retry_after_s is not None
    )


def _cancel(ray: Any, answer: Any) -> None:
    """Tell the detector that nobody waits any more; images not yet run are dropped there."""
    if answer is not None:
        with contextlib.suppress(Exception):
            ray.cancel(answer)


async def _ready(handle: placement.Handle, settings: Settings) -> Health:
    health = await _health(handle, settings.cluster.start_timeout_s)
    if health.state is not State.READY:
        raise DetectorNotReady(
            f"{health.name} on {health.host} is {health.state}: {health.reason}",
            health.failure or Failure.NOT_READY,
        )
    return health


async def _health(handle: placement.Handle, wait_s: float) -> Health:
    try:
        async with asyncio.timeout(wait_s + 30.0):
            health: Health = await handle.health.remote(wait_s)
    except Exception as error:
        fault = fault_of(error)
        raise DetectorNotReady(f"The detector does not answer. {fault.advice}", fault.failure) from error
    return health
