"""Runs batches on the device, and finds out whether a fault belongs to one image or to the device.

    out of memory     the same images are run in smaller batches, and later batches are smaller too
    failed, or lied   the golden photo decides. A wrong answer: the device is at fault, and nothing is run any
                      more. A right answer: an image is at fault; each is run alone, and only that one fails
    device removed    nothing in this process helps

Only so many images are run again: a device that fails all images is not asked twice for each of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from actors.call_settings import AskedImage
from actors.errors import DetectorFault, DeviceFailed, DeviceLies, DeviceRemoved, OutOfMemory
from actors.face_model import FaceModel
from actors.faces import Face
from actors.observer import Observer, Run


@dataclass(frozen=True, slots=True)
class ImageResult:
    """The faces of one image, and the run that found them."""

    faces: tuple[Face, ...]
    run: Run


ResultOrFault = ImageResult | DetectorFault

#: Pixels change only when their call has ended, so nobody should read this.
_CHANGED = (
    "The memory of the photo's pixels was given to another photo before this one had its answer. "
    "Please report it, and set client.max_shared_bytes = 0 meanwhile."
)
#: Images that may be run again: so many at first, and this share more of each image answered since.
_RERUNS_AT_FIRST = 64.0
_RERUNS_PER_ANSWER = 0.1


class BatchRunner:
    """Call it with a batch: it returns the faces, or a fault, of each image.

    Args:
        model: the model, on its device.
        threads: run, assemble and decode batches.
        self_test: detects the golden photo; returns the fault that it found, or None.
        fault: returns what is wrong with the device now, or None; while something is wrong, nothing is run.
        removed: called when the device is gone; only a new process gets it back.
        observer: told of what happens.
    """

    def __init__(
        self,
        model: FaceModel,
        threads: Executor,
        self_test: Callable[[], Awaitable[DetectorFault | None]],
        fault: Callable[[], DetectorFault | None],
        removed: Callable[[str], None],
        observer: Observer,
    ) -> None:
        self._model = model
        self._threads = threads
        self._self_test = self_test
        self._fault = fault
        self._removed = removed
        self._observer = observer
        self._num_reruns_left = _RERUNS_AT_FIRST
        self._opening: asyncio.Task[None] | None = None

    async def __call__(
        self, batch: Sequence[AskedImage], first: bool, begun: Callable[[], None] = lambda: None
    ) -> Sequence[ResultOrFault]:
        """Run one batch.

        Args:
            batch: images of one shape, each with its call's settings.
            first: whether the run goes before others that wait for the device.
            begun: called when the device begins with them.

        Raises:
            DetectorFault: no image of the batch got faces, all for this reason.
        """
        if (fault := self._fault()) is not None:
            raise fault.fresh()
        try:
            answers: Sequence[ResultOrFault] = await self._on_device(batch, first, begun)
        except OutOfMemory as full:
            return await self._smaller(batch, first, full)
        except DeviceRemoved as gone:
            self._removed(gone.detail)
            raise
        except (DeviceFailed, DeviceLies) as failed:
            return await self._one_by_one(batch, first, failed)
        self._num_reruns_left = min(_RERUNS_AT_FIRST, self._num_reruns_left + len(batch) * _RERUNS_PER_ANSWER)
        if self._model.table.is_wanted and (self._opening is None or self._opening.done()):
            self._opening = asyncio.get_running_loop().create_task(self._open_wanted())
        return answers

    async def close(self) -> None:
        """Wait until no batch size is being opened any more."""
        if self._opening is not None:
            await self._opening

    async def _open_wanted(self) -> None:
        """Open the larger batch size that the waiting images would fill; it must prove itself first."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._model.open_wanted)
        except DeviceRemoved as gone:
            self._removed(gone.detail)
        except DetectorFault as fault:
            self._observer.trouble("bucket_not_opened", reason=fault.failure, detail=fault.detail)
            await self._self_test()
        except Exception as error:
            # Nobody waits for this task, so it tells.
            self._observer.trouble("bucket_not_opened", reason=type(error).__name__, detail=repr(error))

    async def _on_device(
        self, batch: Sequence[AskedImage], first: bool, begun: Callable[[], None]
    ) -> list[ResultOrFault]:
        work = partial(self._model.run_batch, batch, first=first, begun=begun)
        found, run = await asyncio.get_running_loop().run_in_executor(self._threads, work)
        return [
            ImageResult(faces, run) if asked.image.is_intact else DetectorFault(_CHANGED)
            for faces, asked in zip(found, batch, strict=True)
        ]

    async def _smaller(
        self, batch: Sequence[AskedImage], first: bool, full: OutOfMemory
    ) -> Sequence[ResultOrFault]:
        if len(batch) == 1:
            # The image is not at fault: every image of its shape is as large.
            await self._self_test()
            return [full]
        size = self._model.limit_batch(len(batch))
        self._observer.trouble("out_of_memory", num_images=len(batch), max_batch=size)
        answers: list[ResultOrFault] = []
        for begin in range(0, len(batch), size):
            answers += await self._each_or_all(batch[begin : begin + size], first)
        return answers

    async def _one_by_one(
        self, batch: Sequence[AskedImage], first: bool, failed: DetectorFault
    ) -> Sequence[ResultOrFault]:
        # After any doubt the device has to prove itself before the next photo is trusted to it.
        self._observer.trouble(
            "run_failed", num_images=len(batch), reason=failed.failure, detail=failed.detail
        )
        if (fault := await self._self_test()) is not None:
            raise fault.fresh()
        if len(batch) == 1:
            return [
                DeviceFailed(
                    f"{failed.detail} The golden photo was right just after, so the photo causes it."
                )
            ]
        if self._num_reruns_left < len(batch):
            raise DeviceFailed(
                f"{failed.detail} The device fails too often to try its photos one by one; ask again later."
            )
        self._num_reruns_left -= len(batch)
        answers: list[ResultOrFault] = []
        for asked in batch:
            answers += await self._each_or_all([asked], first)
        return answers

    async def _each_or_all(self, batch: Sequence[AskedImage], first: bool) -> Sequence[ResultOrFault]:
        """Run a part of a larger batch; a fault of this part must not cost the others their answers."""
        try:
            return await self(batch, first)
        except DetectorFault as fault:
            return [fault] * len(batch)
