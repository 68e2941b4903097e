"""Photos are made small before anything travels: by the client's threads, the costly ones in processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace

import numpy as np

from actors import images as photos
from actors.daemon_threads import DaemonThreads
from actors.decode_cost import DecodeCost, decode_cost
from actors.decode_pool import DecodePool
from actors.encoded_image import EncodedImage
from actors.errors import DetectorFault, ImageFault
from actors.faces import Failed, Failure, Health, Priority, Rejected, Times
from actors.images import ImageSource, Limits, PreparedImage
from actors.intake import num_cores
from cluster.client.call import Call, CallImage, client_stamp
from cluster.client.cluster_preparing import ClusterPreparing
from cluster.protocol.rows import PrepareOrder
from cluster.settings import Settings
from cluster.slabs import SlabPool

#: A call's pixels below this size are made small in the event loop: that takes a millisecond, and a thread
#: would cost as much processor time again. Encoded photos never are.
_MAX_BYTES_AT_ONCE = 1_300_000


def thread_pool(num_threads: int, name: str) -> Executor:
    """Make threads whose names begin with `name`; a read that hangs does not keep the program from ending."""
    return DaemonThreads(num_threads, name)


@dataclass(frozen=True, slots=True)
class _Costly:
    """A photo that a thread has read, and that a process must decode."""

    encoded: bytes
    cost: DecodeCost


class Preprocessor:
    """Decodes and shrinks photos for the tensors that the detectors take.

    Args:
        settings: limits and threads.
        health: of any detector that was heard and fits, for the stamp of outcomes; None until there is one.
        threads: makes the threads, from their number and a name.
        slabs: the memory into which the small photos are written; None for none.
        elsewhere: other machines for a scan's photos while all threads here are busy; None for none.
        shapes: the tensor sizes (height, width) that the detectors take, in pixels; None takes the settings'.
    """

    def __init__(
        self,
        settings: Settings,
        health: Callable[[], Health | None],
        threads: Callable[[int, str], Executor] = thread_pool,
        slabs: SlabPool | None = None,
        elsewhere: ClusterPreparing | None = None,
        shapes: Callable[[], Sequence[tuple[int, int]]] | None = None,
    ) -> None:
        self._slabs = slabs
        self._elsewhere = elsewhere
        self._num_in_threads = 0
        self._detector = settings.detector
        self._health = health
        self._wanted_shapes = shapes
        self._limits = Limits.of(self._detector)
        num_threads = self._num_threads = settings.client.num_prepare_threads or num_cores()
        # Each priority has its own threads, so that a person's photo never waits behind those of a scan.
        self._threads = {each: threads(num_threads, f"rayface-prepare-{each}") for each in Priority}
        # Photos whose cost has no small bound are decoded where that can be ended.
        self._pools = {each: DecodePool(num_threads, self._limits, threads) for each in Priority}
        # Photos that are ready to travel do not wait behind those that are still being prepared.
        self._encoders = {each: threads(num_threads, f"rayface-encode-{each}") for each in Priority}

    async def prepare(self, call: Call) -> None:
        """Prepare every image of a call: it gets its `photo`, or the outcome that says why it has none."""
        for_threads, num_bytes = [], 0
        for image in call.images:
            num_bytes += image.source.nbytes if isinstance(image.source, np.ndarray) else _MAX_BYTES_AT_ONCE
            if num_bytes < _MAX_BYTES_AT_ONCE:
                try:
                    self._settle(image, self._prepared(image.source))
                except Exception as error:
                    image.outcome = self._unforeseen(error)
            else:
                for_threads.append(image)
        if for_threads:
            await asyncio.gather(*(self._prepare_one(image, call) for image in for_threads))

    async def prepare_again(self, images: Sequence[CallImage], priority: Priority, deadline: float) -> None:
        """Prepare images anew that were prepared for other tensors; nobody may use their photos meanwhile."""
        for image in images:
            if self._slabs is not None and image.photo is not None:
                self._slabs.free(image.photo.pixels)
            image.photo = image.encoded = None
        await self.prepare(Call(images, priority, deadline))

    async def encode(self, images: Sequence[CallImage], priority: Priority) -> float:
        """Make JPEGs of the photos of images, which have one each; returns the seconds of one core."""
        loop, threads = asyncio.get_running_loop(), self._encoders[priority]
        return sum(await asyncio.gather(*(loop.run_in_executor(threads, _encode, each) for each in images)))

    def free(self, call: Call) -> None:
        """Free the memory of a call's photos; nobody may use them from now on."""
        if self._slabs is not None:
            for image in call.images:
                if image.photo is not None:
                    self._slabs.free(image.photo.pixels)

    def close(self) -> None:
        """End threads and processes; does not wait for photos that are being prepared."""
        for pool in self._pools.values():
            pool.close()
        for threads in (*self._threads.values(), *self._encoders.values()):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _prepare_one(self, image: CallImage, call: Call) -> None:
        work: Future[PreparedImage | Rejected | _Costly] | None = None
        is_counted = False
        try:
            async with asyncio.timeout_at(call.deadline):
                if call.priority is Priority.BULK and await self._is_prepared_elsewhere(image, call.deadline):
                    return
                self._num_in_threads += 1
                is_counted = True
                work = self._threads[call.priority].submit(self._read_and_prepared, image.source)
                read = await asyncio.wrap_future(work)
                work = None
                made = await self._prepared_apart(read, call.priority) if isinstance(read, _Costly) else read
        except TimeoutError:
            late = "The time was up before the photo was prepared; it was not sent."
            image.outcome = self._failed(Failure.DEADLINE, late)
        except Exception as error:
            image.outcome = self._unforeseen(error)
        else:
            self._settle(image, made)
        finally:
            self._num_in_threads -= is_counted
            if work is not None:
                # The thread cannot be stopped; nobody takes what it makes.
                work.add_done_callback(self._free_late)

    async def _is_prepared_elsewhere(self, image: CallImage, deadline: float) -> bool:
        """Whether another machine has made an image small, or found that it cannot be used."""
        if self._elsewhere is None or self._num_in_threads < self._num_threads:
            return False
        if isinstance(image.source, np.ndarray) or (node := self._elsewhere.take_cpu()) is None:
            return False
        order = PrepareOrder(self._shapes(), self._limits, self._detector.max_enlargement)
        made = await self._elsewhere.prepare(node, image.source, order, deadline)
        if isinstance(made, PreparedImage):
            image.photo = self._placed(made)
        elif made is not None:
            spent = Times(prepare_ms=made.spent_ms)
            image.outcome = Rejected(
                stamp=client_stamp(self._health()), times=spent, reason=made.reason, detail=made.detail
            )
        return made is not None

    def _placed(self, made: PreparedImage) -> PreparedImage:
        return made if self._slabs is None else replace(made, pixels=self._slabs.place(made.pixels))

    def _settle(self, image: CallImage, made: PreparedImage | Rejected | Failed) -> None:
        """Give an image its photo or its outcome."""
        if isinstance(made, PreparedImage):
            image.photo = made
        else:
            image.outcome = made

    def _unforeseen(self, error: Exception) -> Failed:
        # It must not cost the other images of the call their outcomes.
        unforeseen = f"Preparing the photo failed in an unforeseen way: {error!r}. Please report it."
        return self._failed(Failure.INTERNAL, unforeseen)

    def _free_late(self, work: Future[PreparedImage | Rejected | _Costly]) -> None:
        if self._slabs is None or work.cancelled() or work.exception() is not None:
            return
        if isinstance(made := work.result(), PreparedImage):
            self._slabs.free(made.pixels)

    def _read_and_prepared(self, source: ImageSource) -> PreparedImage | Rejected | _Costly:
        """Runs in a thread: prepares a photo if that is cheap, and else only reads it."""
        begun = time.perf_counter()
        if photos.is_pixels(source):
            return self._prepared(source)
        try:
            encoded = photos.encoded_bytes(source, self._limits)
        except ImageFault as fault:
            return self._rejected(fault, begun)
        cost = decode_cost(encoded)
        return self._prepared(encoded) if cost.is_cheap else _Costly(encoded, cost)

    def _prepared(self, source: ImageSource) -> PreparedImage | Rejected:
        begun = time.perf_counter()
        try:
            made = photos.prepare(source, self._shapes(), self._limits, self._detector.max_enlargement)
        except ImageFault as fault:
            return self._rejected(fault, begun)
        return self._placed(made)

    async def _prepared_apart(self, photo: _Costly, priority: Priority) -> PreparedImage | Rejected | Failed:
        """Prepare a photo in a process, which is killed if nobody waits for it any more."""
        begun, pool = time.perf_counter(), self._pools[priority]
        try:
            made = await pool.prepare(
                photo.encoded, photo.cost, self._shapes(), self._detector.max_enlargement
            )
        except ImageFault as fault:
            return self._rejected(fault, begun)
        except DetectorFault as fault:
            return self._failed(fault.failure, fault.detail)
        return self._placed(made)

    def _shapes(self) -> tuple[tuple[int, int], ...]:
        return tuple(self._wanted_shapes() if self._wanted_shapes else self._detector.shapes)

    def _rejected(self, fault: ImageFault, begun: float) -> Rejected:
        spent = Times(prepare_ms=(time.perf_counter() - begun) * 1000)
        stamp = client_stamp(self._health())
        return Rejected(stamp=stamp, times=spent, reason=fault.reason, detail=fault.detail)

    def _failed(self, failure: Failure, detail: str) -> Failed:
        return Failed(stamp=client_stamp(self._health()), reason=failure, detail=detail)


def _encode(image: CallImage) -> float:
    assert image.photo is not None
    begun = time.perf_counter()
    image.encoded = EncodedImage.of(image.photo)
    return time.perf_counter() - begun
