"""Photos are made small in the client's own threads, before anything travels."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor

from actors import images as photos
from actors.errors import ImageFault
from actors.faces import Failed, Failure, Health, Priority, Rejected, Times
from actors.images import ImageSource, Limits, PreparedImage
from actors.intake import num_cores
from cluster.client.call import Call, CallImage, client_stamp
from cluster.settings import Settings


def thread_pool(num_threads: int, name: str) -> Executor:
    """Make threads whose names begin with `name`."""
    return ThreadPoolExecutor(num_threads, thread_name_prefix=name)


class Preprocessor:
    """Decodes and shrinks photos for the tensors that the detectors take.

    Args:
        settings: limits and threads.
        health: of any detector that was heard, which says what tensors it takes; None until there is one, and
            then the settings say it.
        threads: makes the threads, from their number and a name.
    """

    def __init__(
        self,
        settings: Settings,
        health: Callable[[], Health | None],
        threads: Callable[[int, str], Executor] = thread_pool,
    ) -> None:
        self._detector = settings.detector
        self._health = health
        self._limits = Limits(self._detector.max_image_pixels, self._detector.max_image_bytes)
        num_threads = settings.client.num_prepare_threads or num_cores()
        # Each priority has its own threads, so that a person's photo never waits behind those of a scan.
        self._threads = {each: threads(num_threads, f"rayface-prepare-{each}") for each in Priority}

    async def prepare(self, call: Call) -> None:
        """Prepare every image of a call: it gets its `photo`, or the outcome that says why it has none."""
        await asyncio.gather(*(self._prepare_one(image, call) for image in call.images))

    def close(self) -> None:
        """End the threads; does not wait for photos that are being prepared."""
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)

    async def _prepare_one(self, image: CallImage, call: Call) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(call.deadline):
                made = await loop.run_in_executor(self._threads[call.priority], self._shrunk, image.source)
        except TimeoutError:
            late = "The time was up before the photo was prepared; it was not sent."
            image.outcome = self._failed(Failure.DEADLINE, late)
        except Exception as error:
            # An unforeseen error must not cost the other images of the call their outcomes.
            unforeseen = f"Preparing the photo failed in an unforeseen way: {error!r}. Please report it."
            image.outcome = self._failed(Failure.INTERNAL, unforeseen)
        else:
            if isinstance(made, PreparedImage):
                image.photo = made
            else:
                image.outcome = made

    def _shrunk(self, source: ImageSource) -> PreparedImage | Rejected:
        begun, health = time.perf_counter(), self._health()
        shapes = health.shapes if health else self._detector.shapes
        try:
            return photos.prepare(source, shapes, self._limits, self._detector.max_enlargement)
        except ImageFault as fault:
            spent = Times(prepare_ms=(time.perf_counter() - begun) * 1000)
            return Rejected(stamp=client_stamp(health), times=spent, reason=fault.reason, detail=fault.detail)

    def _failed(self, failure: Failure, detail: str) -> Failed:
        return Failed(stamp=client_stamp(self._health()), reason=failure, detail=detail)
