"""Takes images from a source a few at a time, and reads no further ahead."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

from actors.images import ImageSource


@dataclass(frozen=True, slots=True)
class _End:
    """The source gave its last image, or failed."""

    error: BaseException | None = None


async def grouped(
    images: Iterable[ImageSource] | AsyncIterable[ImageSource], most: int
) -> AsyncGenerator[list[ImageSource], None]:
    """Yield what the source has ready: at least 1 image and at most `most` at a time.

    A plain iterable is read in a thread of its own, because it may block (names from a pipe, a slow disk).
    A list or another sequence is not.

    Raises:
        Exception: what the source itself raises, after the images that it gave.
    """
    if isinstance(images, Sequence):
        for begin in range(0, len(images), most):
            yield list(images[begin : begin + most])
        return
    ready: asyncio.Queue[ImageSource | _End] = asyncio.Queue(most)
    reading = asyncio.create_task(_read(images, ready))
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


async def _read(
    images: Iterable[ImageSource] | AsyncIterable[ImageSource], ready: asyncio.Queue[ImageSource | _End]
) -> None:
    source = images if isinstance(images, AsyncIterable) else _read_in_thread(images)
    try:
        async for image in source:
            await ready.put(image)
    except (Exception, asyncio.CancelledError) as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # A source may raise CancelledError itself; swallowed, it would leave the reader waiting for ever.
        await ready.put(_End(error))
    else:
        await ready.put(_End())
    finally:
        if isinstance(source, AsyncGenerator):
            await source.aclose()


async def _read_in_thread(images: Iterable[ImageSource]) -> AsyncIterator[ImageSource]:
    """Read a source that may block, one image ahead.

    The thread is a daemon, and nothing waits for it. So a source that blocks for ever delays neither the end
    of the stream nor the end of the process.
    """
    loop = asyncio.get_running_loop()
    given: asyncio.Queue[ImageSource | _End] = asyncio.Queue()
    #: True asks for the next image; False ends the thread. Its `put` never blocks, not even in a finalizer.
    wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def read() -> None:
        item: ImageSource | _End = _End()
        # RuntimeError: the loop has ended, so nobody reads any more.
        with contextlib.suppress(RuntimeError):
            iterator = None
            while wanted.get():
                try:
                    iterator = iter(images) if iterator is None else iterator
                    item = next(iterator, _End())
                except Exception as error:
                    item = _End(error)
                except BaseException as error:
                    # SystemExit would end the event loop of the reader, and with it every other call.
                    item = _End(RuntimeError(f"The source of images raised {error!r}."))
                loop.call_soon_threadsafe(given.put_nowait, item)

    threading.Thread(target=read, name="rayface-source", daemon=True).start()
    try:
        while True:
            wanted.put(True)
            item = await given.get()
            if not isinstance(item, _End):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                return
    finally:
        wanted.put(False)
