"""Checks the images that callers send, and decodes or prepares them where that is needed.

Photos whose cost has no small bound are decoded in processes that can be ended; all others in threads.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

from actors import images as photos
from actors.daemon_threads import DaemonThreads
from actors.decode_cost import DecodeCost, decode_cost
from actors.decode_pool import DecodePool
from actors.encoded_image import EncodedImage
from actors.errors import Busy, DeadlineMissed, ImageFault
from actors.faces import Rejection
from actors.images import Limits, Pixels, PreparedImage
from actors.settings import DetectorSettings
from actors.spare_cores import SpareCores

Encoded = bytes | bytearray | memoryview


def num_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class ImageIntake:
    """Checks prepared images; decodes, or prepares, others in threads and processes of its own."""

    def __init__(self, settings: DetectorSettings) -> None:
        self._settings = settings
        self._limits = Limits.of(settings)
        num_threads = settings.num_prepare_threads or num_cores()
        self._threads = DaemonThreads(num_threads, "prepare")
        self._pool = DecodePool(num_threads, self._limits, DaemonThreads)
        self._num_preparing = 0
        self._num_bytes = 0
        #: Cores of this machine that could decode JPEGs.
        self.spare_cores = SpareCores(num_cores())

    @contextmanager
    def room(self) -> Iterator[Callable[[object], None]]:
        """Give the images of a call room while the block runs.

        Yields:
            A function that counts the bytes of an image, as it was sent. It raises `Busy` if the images that
            are here leave no room for it.
        """
        own_bytes = 0

        def take(image: object) -> None:
            nonlocal own_bytes
            num_bytes = _num_bytes(image)
            # A photo that is too large by itself is rejected later, with that reason.
            if self._num_bytes and self._num_bytes + num_bytes > self._settings.max_queued_bytes:
                raise Busy(f"{self._num_bytes:,} bytes of images are waiting already; ask again in 1 s.", 1.0)
            self._num_bytes += num_bytes
            own_bytes += num_bytes

        try:
            yield take
        finally:
            self._num_bytes -= own_bytes

    def close(self) -> None:
        """End the processes; photos in them fail."""
        self._pool.close()

    async def prepare(self, image: object, num_queued: int, deadline: float | None = None) -> PreparedImage:
        """Check the image, or prepare it.

        Args:
            image: as the caller sent it.
            num_queued: images that wait for a run already.
            deadline: moment on the event loop's clock at which decoding is given up; None for never.

        Raises:
            ImageFault: the image cannot be used.
            DetectorFault: the image was good when its client encoded it, and arrived damaged.
            Busy: too many images wait.
            DeadlineMissed: the photo was not decoded in time.
        """
        if isinstance(image, PreparedImage):
            self._check(image)
            return image
        work: Callable[[], PreparedImage | tuple[bytes, DecodeCost]]
        if isinstance(image, EncodedImage):
            self._check_shape(image.small_height, image.small_width, image.shape)
            work = partial(self._decode, image)
        elif isinstance(image, Encoded | np.ndarray):
            work = partial(self._prepare, image)
        else:
            raise ImageFault(
                Rejection.UNSUPPORTED,
                f"It is a {type(image).__name__}; send an encoded photo as bytes, a uint8[height, width, 3] "
                "array or a PreparedImage. (Paths are read by the client, not by the detector.)",
            )
        waiting = num_queued + self._num_preparing
        if waiting >= self._settings.max_queued_images:
            raise Busy(f"{waiting} images are waiting already; ask again in 1 s.", 1.0)
        self._num_preparing += 1
        try:
            async with asyncio.timeout_at(deadline):
                made = await asyncio.get_running_loop().run_in_executor(self._threads, work)
                return made if isinstance(made, PreparedImage) else await self._prepare_apart(*made)
        except TimeoutError:
            raise DeadlineMissed("The time was up before the photo was decoded.") from None
        finally:
            self._num_preparing -= 1

    def _prepare(self, image: Encoded | Pixels) -> PreparedImage | tuple[bytes, DecodeCost]:
        """Prepare a photo whose cost is bounded; return another one as it is, with its cost."""
        if not isinstance(image, np.ndarray):
            image = photos.encoded_bytes(image, self._limits)
            cost = decode_cost(image)
            if not cost.is_cheap:
                return image, cost
        shapes, enlargement = self._settings.shapes, self._settings.max_enlargement
        return photos.prepare(image, shapes, self._limits, enlargement)

    async def _prepare_apart(self, encoded: bytes, cost: DecodeCost) -> PreparedImage:
        shapes, enlargement = self._settings.shapes, self._settings.max_enlargement
        return await self._pool.prepare(encoded, cost, shapes, enlargement)

    def _decode(self, image: EncodedImage) -> PreparedImage:
        begun = time.thread_time()
        try:
            return image.decoded()
        finally:
            self.spare_cores.decoded(time.thread_time() - begun)

    def _check(self, image: PreparedImage) -> None:
        """Refuse what a caller of another version, or with other settings, has prepared."""
        height, width = photos.check_pixels(image.pixels, self._limits).shape[:2]
        self._check_shape(height, width, image.shape)

    def _check_shape(self, height: int, width: int, shape: tuple[int, int]) -> None:
        if shape not in self._settings.shapes or not (0 < height <= shape[0] and 0 < width <= shape[1]):
            raise ImageFault(
                Rejection.UNSUPPORTED,
                f"The photo was prepared as {height} x {width} for a tensor of {shape}; this detector takes "
                f"{list(self._settings.shapes)}.",
            )


def _num_bytes(image: object) -> int:
    if isinstance(image, PreparedImage):
        return int(image.pixels.nbytes)
    if isinstance(image, EncodedImage):
        # As large as it gets when it is decoded.
        return max(len(image.data), image.small_height * image.small_width * 3)
    if isinstance(image, np.ndarray | memoryview):
        return int(image.nbytes)
    return len(image) if isinstance(image, bytes | bytearray) else 0
