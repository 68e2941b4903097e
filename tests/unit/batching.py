"""A device for the batcher's tests, and a call that waits for all its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from actors.batcher import Batcher
from actors.call_settings import AskedImage
from actors.errors import DetectorFault
from actors.images import PreparedImage
from tests.fakes import prepared

Answers = Sequence[int | DetectorFault]


class Device:
    """Takes a second a run and answers each image with its number; one run at a time behind a gate."""

    def __init__(self, seconds: float = 1.0, per_image_s: float = 0.0, gate: bool = False) -> None:
        self.seconds = seconds
        self.per_image_s = per_image_s
        self.expected_s = 1.0
        self.gate = gate
        self.waiting: list[tuple[bool, asyncio.Event]] = []
        self.is_busy = False
        self.running: asyncio.Task[Any] | None = None
        self.batches: list[list[int]] = []
        self.shapes: list[set[tuple[int, int]]] = []
        self.broken: Callable[[Sequence[PreparedImage]], Answers | None] = lambda batch: None

    async def __call__(self, asked: Sequence[AskedImage], first: bool, begun: Callable[[], None]) -> Answers:
        self.running = asyncio.current_task()
        batch = [each.image for each in asked]
        await self._pass(first)
        begun()
        numbers = [image.height - 80 for image in batch]
        self.batches.append(numbers)
        self.shapes.append({image.shape for image in batch})
        await asyncio.sleep(self.seconds + self.per_image_s * len(batch))
        self.is_busy = False
        if self.waiting:
            self.waiting.sort(key=lambda each: not each[0])
            self.waiting.pop(0)[1].set()
        spoiled = self.broken(batch)
        return numbers if spoiled is None else spoiled

    def cancel(self) -> None:
        """Cancel the task of the latest run."""
        assert self.running is not None
        self.running.cancel()

    async def _pass(self, first: bool) -> None:
        if self.gate and self.is_busy:
            turn = (first, asyncio.Event())
            self.waiting.append(turn)
            await turn[1].wait()
        self.is_busy = True

    def expect(self, num: int, shape: tuple[int, int]) -> float:
        return self.seconds + self.per_image_s * num if self.per_image_s else self.expected_s

    def batcher(self, size: int = 4, lanes: int = 1, most: int = 100, **options: Any) -> Batcher[int]:
        return Batcher(
            self,
            best_batch=lambda shape: size,
            expected_s=self.expect,
            num_lanes=lanes,
            max_queued=most,
            **options,
        )


async def answers(batcher: Batcher[int], numbers: Sequence[int], **options: Any) -> list[Any]:
    """The results of images that come as calls of one image each, at the same moment."""
    calls = (batcher.submit([prepared(n)], **options) for n in numbers)
    return [getattr(a, "value", a) for got in await asyncio.gather(*calls) for a in got]
