"""`FaceClient`: the story of one call. Prepare here, ask there, one outcome an image, in order, in time.

Nothing is repeated here: Ray repeats a call whose process died (`max_task_retries`). Being told `busy` is
flow control and no failure: those images were not looked at, and are asked for again within the deadline.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any, Self

from actors import images as photos
from actors.errors import ImageFault
from actors.faces import Failed, Failure, Health, Outcome, Priority, Rejected, Stamp, Times
from actors.images import ImageSource, Limits, PreparedImage
from actors.preparing import num_cores
from cluster import placement
from cluster.errors import fault_of
from cluster.fleet import Fleet, ask_health, cancel
from cluster.in_thread import in_thread
from cluster.settings import Settings, load_settings

#: An answer that is due when the deadline is up still has to travel.
_GRACE_S = 0.5


class FaceClient:
    """Asks the detector; made by `connect`, ended by `close` (or `async with`)."""

    def __init__(self, fleet: Fleet, settings: Settings, leave: Callable[[], None]) -> None:
        self._fleet = fleet
        first = fleet.choose().health
        if first is None:
            raise ValueError("A client needs a fleet that has started.")
        self._settings = settings
        self._leave = leave
        self._shapes = first.shapes
        self._stamp = Stamp("client", first.stamp.model)
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
        cluster = ExitStack()
        try:
            await in_thread(lambda: cluster.callback(placement.join_or_start(settings)))
            fleet = await Fleet.connect(settings)
        except BaseException:
            await in_thread(cluster.close)
            raise
        return cls(fleet, settings, cluster.close)

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
        """How the detector is that would be asked next.

        Raises:
            DetectorNotReady: it does not answer.
        """
        return await ask_health(self._fleet.choose().handle, wait_s, wait_s + 30.0)

    async def close(self) -> None:
        """End what `connect` began: the threads, and the embedded Ray if there is one."""
        await self._fleet.close()
        self._preparers.shutdown(wait=False, cancel_futures=True)
        await in_thread(self._leave)

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
        """The calls in flight are a queue of fixed length; what its oldest brings is given at once.

        The next images are waited for meanwhile, so that a source that stalls holds no answer back.
        """
        most = self._settings.client.max_calls_in_flight
        calls: deque[asyncio.Task[list[Outcome]]] = deque()
        groups = _grouped(images, self._settings.client.images_per_call)
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
                        calls.append(asyncio.create_task(self._call(taken, priority, deadline())))
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
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.get_running_loop().run_in_executor(self._preparers, self._prepare, image)
        except TimeoutError:
            return self._failed(
                Failure.DEADLINE, "The time was up before the photo was prepared; it was not sent."
            )
        except Exception as error:
            # Whatever it is, it must not cost the images beside this one their outcomes.
            return self._failed(
                Failure.INTERNAL, f"Preparing the photo failed in an unforeseen way: {error!r}."
            )

    def _prepare(self, image: ImageSource) -> PreparedImage | Rejected:
        begun = time.perf_counter()
        try:
            return photos.prepare(image, self._shapes, self._limits, self._settings.detector.max_enlargement)
        except ImageFault as fault:
            spent = Times(prepare=(time.perf_counter() - begun) * 1000)
            return Rejected(stamp=self._stamp, times=spent, reason=fault.reason, detail=fault.detail)

    async def _ask(
        self, images: Sequence[PreparedImage], priority: Priority, deadline: float
    ) -> Sequence[Outcome]:
        left_s = deadline - asyncio.get_running_loop().time()
        if left_s <= 0:
            late = self._failed(Failure.DEADLINE, "The time was up before the photo was sent.")
            return [late] * len(images)
        answer = None
        detector = self._fleet.choose()
        detector.num_in_flight += len(images)
        try:
            answer = detector.handle.detect.remote(images, priority=priority.value, deadline_s=left_s)
            async with asyncio.timeout(left_s + _GRACE_S):
                outcomes: list[Outcome] = await answer
            if len(outcomes) != len(images):
                unasked = (
                    f"The detector gave {len(outcomes)} outcomes for {len(images)} images. Please report it."
                )
                return [self._failed(Failure.INTERNAL, unasked)] * len(images)
            return detector.refuse_late(outcomes)
        except asyncio.CancelledError:
            cancel(answer)
            raise
        except Exception as error:
            if isinstance(error, TimeoutError):
                cancel(answer)
            fault = fault_of(error)
            return [self._failed(fault.failure, fault.advice)] * len(images)
        finally:
            detector.num_in_flight -= len(images)

    def _failed(self, failure: Failure, detail: str) -> Failed:
        return Failed(stamp=self._stamp, reason=failure, detail=detail)


async def _grouped(
    images: Iterable[ImageSource] | AsyncIterable[ImageSource], most: int
) -> AsyncGenerator[list[ImageSource], None]:
    """What the source has ready, at least 1 and at most `most` at a time, and read no further ahead.

    A plain iterable is advanced in a thread of its own, because it may block (a list
    from a pipe, a slow disk).
    """
    ready: asyncio.Queue[ImageSource | _End] = asyncio.Queue(most)

    async def read() -> None:
        try:
            async for image in images if isinstance(images, AsyncIterable) else _in_thread(images):
                await ready.put(image)
        except Exception as error:
            await ready.put(_End(error))
        else:
            await ready.put(_End())

    reading = asyncio.create_task(read())
    try:
        while True:
            group = [await ready.get()]
            while len(group) < most and not ready.empty():
                group.append(ready.get_nowait())
            end = group.pop() if isinstance(group[-1], _End) else None
            if group:
                yield group  # type: ignore[misc]  # the end is the last, and was taken out
            if isinstance(end, _End):
                if end.error is not None:
                    raise end.error
                return
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _End:
    """The source gave its last image, or failed."""

    error: Exception | None = None


async def _in_thread(images: Iterable[ImageSource]) -> AsyncIterator[ImageSource]:
    iterator, end = iter(images), _End()
    reader = ThreadPoolExecutor(1, thread_name_prefix="rayface-source")
    try:
        while not isinstance(
            image := await asyncio.get_running_loop().run_in_executor(reader, next, iterator, end), _End
        ):
            yield image
    finally:
        # Not waited for: a source that blocks would hold up whoever has had enough.
        reader.shutdown(wait=False)


def _is_busy(outcome: Outcome) -> bool:
    return (
        isinstance(outcome, Failed) and outcome.reason is Failure.BUSY and outcome.retry_after_s is not None
    )
