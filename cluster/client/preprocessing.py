"""Photos made small in the client's own threads, before anything travels; and what never needs to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from actors import images as photos
from actors.errors import ImageFault
from actors.faces import Failed, Failure, Health, Outcome, Priority, Rejected, Stamp, Times
from actors.images import ImageSource, Limits, PreparedImage
from actors.intake import num_cores
from cluster.settings import Settings

#: Larger arguments would not travel inside a call, but by Ray's object store (see `node.contract.COMMON`).
_MOST_BYTES = 10_000_000


class Preprocessor:
    """Decodes and shrinks photos for the tensors that the detectors take.

    Args:
        settings: limits and threads.
        health: of any detector that was heard, which says what tensors it takes; None until there is one, and
            then the settings say it.
    """

    def __init__(self, settings: Settings, health: Callable[[], Health | None]) -> None:
        self._detector = settings.detector
        self._health = health
        self._limits = Limits(self._detector.max_image_pixels, self._detector.max_image_bytes)
        num_threads = settings.client.num_prepare_threads or num_cores()
        # Threads of their own, so that a person's photo never waits behind those of a scan.
        self._threads = {
            each: ThreadPoolExecutor(num_threads, thread_name_prefix=f"rayface-prepare-{each}")
            for each in Priority
        }

    async def prepared(
        self, images: Sequence[ImageSource], priority: Priority, deadline: float
    ) -> list[PreparedImage | Outcome]:
        """Each image ready to travel, or the outcome of one that is not; in order.

        Args:
            images: encoded photos, paths or pixels.
            priority: of the call.
            deadline: on the event loop's clock; what is not ready then has failed.
        """
        return list(await asyncio.gather(*(self._one(image, priority, deadline) for image in images)))

    def failed(self, failure: Failure, detail: str, retry_after_s: float | None = None) -> Failed:
        """The outcome of an image that no detector has answered."""
        return Failed(
            stamp=Stamp("client", self._model), reason=failure, detail=detail, retry_after_s=retry_after_s
        )

    def late(self) -> Failed:
        """The outcome of an image whose time was up before it was sent."""
        return self.failed(Failure.DEADLINE, "The time was up before the photo was sent.")

    def close(self) -> None:
        """End the threads."""
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)

    @property
    def _model(self) -> str:
        health = self._health()
        return health.stamp.model if health else ""

    async def _one(self, image: ImageSource, priority: Priority, deadline: float) -> PreparedImage | Outcome:
        threads, loop = self._threads[priority], asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(deadline):
                return await loop.run_in_executor(threads, self._prepare, image)
        except TimeoutError:
            return self.failed(
                Failure.DEADLINE, "The time was up before the photo was prepared; it was not sent."
            )
        except Exception as error:
            # Whatever it is, it must not cost the images beside this one their outcomes.
            return self.failed(
                Failure.INTERNAL, f"Preparing the photo failed in an unforeseen way: {error!r}."
            )

    def _prepare(self, image: ImageSource) -> PreparedImage | Rejected:
        begun, health = time.perf_counter(), self._health()
        shapes = health.shapes if health else self._detector.shapes
        try:
            return photos.prepare(image, shapes, self._limits, self._detector.max_enlargement)
        except ImageFault as fault:
            spent = Times(prepare_ms=(time.perf_counter() - begun) * 1000)
            return Rejected(
                stamp=Stamp("client", self._model), times=spent, reason=fault.reason, detail=fault.detail
            )


def in_calls(images: Sequence[PreparedImage]) -> list[list[PreparedImage]]:
    """The images in groups that travel inside a call each, in order."""
    calls: list[list[PreparedImage]] = []
    num_bytes = 0
    for image in images:
        num_bytes += image.pixels.nbytes
        if not calls or num_bytes > _MOST_BYTES:
            calls.append([])
            num_bytes = image.pixels.nbytes
        calls[-1].append(image)
    return calls
