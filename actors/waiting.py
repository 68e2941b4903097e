"""The images of calls while they wait for their results: one future for all images of a call."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from actors.call_settings import OF_FAMILY, AskedImage, CallSettings
from actors.errors import ActorError
from actors.faces import Priority
from actors.images import PreparedImage

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class TimedResult(Generic[Result]):
    """One image's result, and its time in the queue and in the run, in milliseconds."""

    value: Result
    queue_ms: float
    run_ms: float


@dataclass(slots=True, eq=False)
class WaitingCall:
    """A call whose images wait together: a task and a future for each image would cost more than its run.

    Attributes:
        priority: priority of its images.
        deadline: moment on the event loop's clock after which a result is of no use; infinite for none.
        arrived: moment of its arrival, on the same clock.
        settled: done when every image has its answer.
        num_open: images that have none yet.
        settings: of the call.
    """

    priority: Priority
    deadline: float
    arrived: float
    settled: asyncio.Future[None] = field(repr=False)
    num_open: int = 0
    settings: CallSettings = OF_FAMILY


@dataclass(slots=True, eq=False)
class Entry(Generic[Result]):
    """One image of a call.

    Attributes:
        image: the image.
        call: its call.
        answer: its result, or why there is none; None while it waits. The first answer is kept.
    """

    image: PreparedImage
    call: WaitingCall = field(repr=False)
    answer: TimedResult[Result] | ActorError | None = None

    @property
    def asked(self) -> AskedImage:
        """The image as a run takes it."""
        return AskedImage(self.image, self.call.settings)

    def settle(self, answer: TimedResult[Result] | ActorError) -> None:
        """Give the image its answer, unless it has one."""
        if self.answer is not None:
            return
        self.answer = answer
        self.call.num_open -= 1
        if not self.call.num_open and not self.call.settled.done():
            self.call.settled.set_result(None)
