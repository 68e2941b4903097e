"""Calls under way at once: a queue of bounded length, whose oldest call is answered first."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Sequence
from itertools import islice

from actors.faces import Outcome
from actors.images import ImageSource
from cluster.client.chunks import grouped
from cluster.errors import ClientNotUsable

CLOSED_MEANWHILE = "This client was closed while the call was under way. Make a new one."


async def pipelined(
    images: Iterable[ImageSource] | AsyncIterable[ImageSource],
    call: Callable[[Sequence[ImageSource]], Awaitable[list[Outcome]]],
    *,
    images_per_call: int,
    max_calls: int,
    closed: asyncio.Future[None],
) -> AsyncGenerator[Outcome, None]:
    """Ask for images in calls, several at once, and yield one outcome for each image, in order.

    The oldest call's outcomes are given as soon as it ends, while the source is still waited for. So a source
    that stalls holds no answer back. Closing the generator cancels the calls under way.

    Args:
        images: the source; it is read no further than the calls need.
        call: makes one call, and returns one outcome for each of its images.
        images_per_call: the most images of one call.
        max_calls: the most calls at once.
        closed: done when the client is closed; the generator then waits for nothing more.

    Raises:
        ClientNotUsable: the client was closed before every image had its outcome.
        Exception: what the source raises, after the outcomes of the images that it gave; what a call raises.
    """
    groups = grouped(images, images_per_call)
    calls: deque[asyncio.Future[list[Outcome]]] = deque()
    reading: asyncio.Task[list[ImageSource]] | None = None
    fault: BaseException | None = None
    has_ended = False
    try:
        while calls or not has_ended:
            if closed.done():
                raise ClientNotUsable(CLOSED_MEANWHILE)
            if reading is None and not has_ended and len(calls) < max_calls:
                reading = asyncio.create_task(anext(groups, []))
            await asyncio.wait(
                {closed, *([reading] if reading else ()), *islice(calls, 1)},
                return_when=asyncio.FIRST_COMPLETED,
            )
            if reading is not None and reading.done():
                fault = reading.exception()
                group = [] if fault else reading.result()
                reading, has_ended = None, not group
                if group:
                    calls.append(asyncio.ensure_future(call(group)))
            while calls and calls[0].done():
                for outcome in calls.popleft().result():
                    yield outcome
        if fault is not None:
            raise fault
    finally:
        under_way = [*calls, *([reading] if reading else ())]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await groups.aclose()
