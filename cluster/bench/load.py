"""The load generator: keeps so many calls outstanding, or begins calls at a fixed rate.

With a rate, a call's latency counts from the moment at which it should have begun. A client that is late with
its calls would else hide how long a caller really waited (coordinated omission).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from actors.faces import Outcome, Priority
from actors.images import ImageSource


class Detects(Protocol):
    """What is put under load; `FaceClient` is one."""

    async def detect(
        self,
        images: Sequence[ImageSource],
        *,
        priority: Priority | str = Priority.INTERACTIVE,
        deadline_s: float | None = None,
    ) -> list[Outcome]:
        """One outcome for each image, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Load:
    """How much is asked; one of the two is set.

    Attributes:
        concurrency: calls that are outstanding at all times.
        rate: images a second, in calls at equal distances, whether earlier calls have ended or not.
    """

    concurrency: int | None = None
    rate: float | None = None

    def __str__(self) -> str:
        if self.concurrency is not None:
            return f"{self.concurrency} caller{'s' if self.concurrency > 1 else ''}"
        return f"{self.rate:g} images/s"


@dataclass(frozen=True, slots=True)
class Calls:
    """What each call is.

    Attributes:
        images_per_call: images of one call.
        priority: of all of them.
        deadline_s: seconds after which a call's answer is of no use; None takes the client's.
    """

    images_per_call: int = 1
    priority: Priority = Priority.INTERACTIVE
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """One call that was answered; moments are on the event loop's clock.

    Attributes:
        begun: when it should have begun.
        ended: when its outcomes were there.
        outcomes: one for each image.
    """

    begun: float
    ended: float
    outcomes: Sequence[Outcome]


class LoadGenerator:
    """Makes calls until it is cancelled.

    Args:
        client: is asked.
        images: are sent in turn, again and again.
        load: how much is asked.
        calls: what each call is.
        on_answer: is told of each call that was answered.
    """

    def __init__(
        self,
        client: Detects,
        images: Sequence[ImageSource],
        load: Load,
        calls: Calls,
        on_answer: Callable[[Answered], None],
    ) -> None:
        self._client = client
        self._images = images
        self._load = load
        self._calls = calls
        self._on_answer = on_answer
        self._num_sent = 0
        self._first: float | None = None
        #: Calls that are outstanding now.
        self.num_outstanding = 0

    async def run(self) -> None:
        """Make calls until this task is cancelled; calls that are outstanding then are cancelled too.

        Raises:
            ExceptionGroup: what calls raised; an image that failed is an outcome, and raises nothing.
        """
        async with asyncio.TaskGroup() as group:
            if self._load.concurrency is not None:
                for _ in range(self._load.concurrency):
                    group.create_task(self._one_after_the_other())
            else:
                await self._at_equal_distances(group)

    def num_due(self, now: float) -> int:
        """Calls that should have begun until now, whether they did or not; 0 without a rate."""
        return 0 if self._first is None else math.floor((now - self._first) / self._every_s) + 1

    @property
    def _every_s(self) -> float:
        """Seconds from one call to the next, with a rate."""
        assert self._load.rate is not None
        return self._calls.images_per_call / self._load.rate

    async def _one_after_the_other(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            await self._call(now())

    async def _at_equal_distances(self, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        first, every_s = loop.time(), self._every_s
        self._first = first
        for number in count():
            # Reckoned from the first call, so that one late call does not make all others late.
            intended = first + number * every_s
            await asyncio.sleep(max(0.0, intended - loop.time()))
            group.create_task(self._call(intended))

    async def _call(self, begun: float) -> None:
        images = [self._next() for _ in range(self._calls.images_per_call)]
        self.num_outstanding += 1
        try:
            outcomes = await self._client.detect(
                images, priority=self._calls.priority, deadline_s=self._calls.deadline_s
            )
        finally:
            self.num_outstanding -= 1
        self._on_answer(Answered(begun, asyncio.get_running_loop().time(), outcomes))

    def _next(self) -> ImageSource:
        self._num_sent += 1
        return self._images[(self._num_sent - 1) % len(self._images)]
