"""A source of images, taken a few at a time and read no further ahead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from actors.images import ImageSource


async def grouped(
    images: Iterable[ImageSource] | AsyncIterable[ImageSource], most: int
) -> AsyncGenerator[list[ImageSource], None]:
    """What the source has ready, at least 1 and at most `most` at a time.

    A plain iterable is advanced in a thread of its own, because it may block (a list from a pipe, a slow
    disk); a list or another sequence is not.

    Raises:
        Exception: whatever the source itself raises, after what it gave.
    """
    if isinstance(images, Sequence):
        for begin in range(0, len(images), most):
            yield list(images[begin : begin + most])
        return
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
