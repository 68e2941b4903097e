"""The detectors of a cluster, one a lent device: found, placed, watched, and the least busy of them chosen.

A detector whose machine left waits in Ray for a device to come back and is passed over meanwhile; nobody has
to do anything when it does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from actors.faces import Failed, Failure, Health, Outcome, State
from cluster import placement
from cluster.errors import DetectorNotReady, fault_of
from cluster.in_thread import in_thread
from cluster.settings import Settings

#: How often each detector is asked how it is, and new devices are looked for.
_LOOK_EVERY_S = 2.0
#: One that does not answer this long is passed over while there are others.
_ANSWER_WITHIN_S = 5.0


@dataclass(eq=False)
class Detector:
    """One detector as a client sees it.

    Attributes:
        health: as last heard; None if it never answered.
        is_away: whether the last question got no answer.
        num_in_flight: images that this client has sent it and that are not answered yet.
        num_of_others: images of other clients that it had when last asked.
        epoch: of its newest owner that was heard; what an earlier one answers is refused.
    """

    name: str
    handle: placement.Handle
    health: Health | None = None
    is_away: bool = False
    num_in_flight: int = 0
    num_of_others: int = 0
    epoch: int = 0

    @property
    def is_ready(self) -> bool:
        """Whether it would answer now, as far as we know."""
        return not self.is_away and self.health is not None and self.health.state is State.READY

    @property
    def expected_ms(self) -> float:
        """How long what it has would take it, by what it measured at start."""
        buckets = self.health.buckets if self.health else ()
        per_image = min((each.run_ms / each.num_images for each in buckets), default=1.0)
        return (self.num_in_flight + self.num_of_others + 1) * per_image

    def hear(self, health: Health) -> None:
        """Take note of what it says of itself."""
        if health.stamp.epoch < self.epoch:
            return
        self.health, self.is_away, self.epoch = health, False, health.stamp.epoch
        self.num_of_others = max(0, health.num_queued + health.num_running - self.num_in_flight)

    def refuse_late(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """The outcomes, those of an owner that has been succeeded replaced by a failure that says so."""
        self.epoch = max([self.epoch, *(outcome.stamp.epoch for outcome in outcomes)])
        return [
            outcome
            if outcome.stamp.epoch == self.epoch or not outcome.stamp.epoch
            else Failed(
                stamp=outcome.stamp,
                reason=Failure.DETECTOR_LOST,
                detail=f"{self.name} had a newer owner when this answer came; it was refused. Ask again.",
            )
            for outcome in outcomes
        ]


class Fleet:
    """All detectors of the cluster.

    Args:
        find: names and handles of those that exist, after placing one for each device without.
        timeout_s: what a first answer may take; a detector fetches its model at its first start.
    """

    def __init__(self, find: Callable[[], Awaitable[dict[str, placement.Handle]]], timeout_s: float) -> None:
        self._find = find
        self._timeout_s = timeout_s
        self.detectors: dict[str, Detector] = {}
        self._watching: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, settings: Settings) -> Fleet:
        """The fleet, when at least one of it is ready.

        Raises:
            DetectorNotReady: none is; says why the first of them is not.
        """
        made = cls(lambda: in_thread(placement.place_all, settings), settings.cluster.start_timeout_s)
        await made.start()
        return made

    async def start(self) -> None:
        """Find them all and wait until one is ready.

        Raises:
            DetectorNotReady: none is; says why.
        """
        await self._update()
        asking = {asyncio.create_task(self._first_health(each)) for each in self.detectors.values()}
        try:
            faults: list[DetectorNotReady] = []
            for answer in asyncio.as_completed(asking):
                try:
                    await answer
                except DetectorNotReady as fault:
                    faults.append(fault)
                    continue
                break
            else:
                raise faults[0]
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        self._watching = asyncio.create_task(self._watch())

    def choose(self) -> Detector:
        """The one that would answer soonest; where none is ready, the least loaded of all."""
        every = list(self.detectors.values())
        return min([each for each in every if each.is_ready] or every, key=lambda each: each.expected_ms)

    async def close(self) -> None:
        """Stop watching."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def look(self) -> None:
        """Find new detectors and ask each how it is; those that do not answer are away."""
        await self._update()
        await asyncio.gather(*(self._look_at(each) for each in self.detectors.values()))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            # No fault of the cluster may end the watch: it has to see the cluster come back.
            with contextlib.suppress(Exception):
                await self.look()

    async def _update(self) -> None:
        for name, handle in (await self._find()).items():
            if name not in self.detectors:
                self.detectors[name] = Detector(name, handle)

    async def _look_at(self, detector: Detector) -> None:
        try:
            detector.hear(await ask_health(detector.handle, 0.0, _ANSWER_WITHIN_S))
        except DetectorNotReady:
            detector.is_away = True

    async def _first_health(self, detector: Detector) -> None:
        health = await ask_health(detector.handle, self._timeout_s, self._timeout_s + 30.0)
        detector.hear(health)
        if health.state is not State.READY:
            raise DetectorNotReady(
                f"{health.name} on {health.host} is {health.state}: {health.reason}",
                health.failure or Failure.NOT_READY,
            )


async def ask_health(handle: placement.Handle, wait_s: float, timeout_s: float) -> Health:
    """How a detector is, after waiting up to `wait_s` for its start.

    Raises:
        DetectorNotReady: it does not answer within `timeout_s`.
    """
    answer: Any = None
    try:
        async with asyncio.timeout(timeout_s):
            answer = handle.health.remote(wait_s)
            health: Health = await answer
    except Exception as error:
        if isinstance(error, TimeoutError):
            cancel(answer)
        fault = fault_of(error)
        raise DetectorNotReady(f"The detector does not answer. {fault.advice}", fault.failure) from error
    return health


def cancel(answer: Any) -> None:
    """Tell the detector that nobody waits any more; images not yet run are dropped there."""
    if answer is not None:
        import ray

        with contextlib.suppress(Exception):
            ray.cancel(answer)


def place_and_look(settings: Settings) -> list[dict[str, Any]]:
    """Place what is missing, wait for every detector's start, and say how each is.

    Raises:
        DetectorNotReady: no machine lends a device.
    """

    async def look() -> list[dict[str, Any]]:
        fleet = Fleet(lambda: in_thread(placement.place_all, settings), settings.cluster.start_timeout_s)
        with contextlib.suppress(DetectorNotReady):
            await fleet.start()
        if not fleet.detectors:
            await fleet._update()
        rows = await asyncio.gather(*(row(each) for each in fleet.detectors.values()))
        await fleet.close()
        return rows

    async def row(detector: Detector) -> dict[str, Any]:
        try:
            # One that waits in Ray for its device to come back would let us wait as long.
            health = await ask_health(detector.handle, 60.0, 90.0 if detector.health else 20.0)
        except DetectorNotReady as error:
            return {
                "name": detector.name,
                "state": "away",
                "device": "",
                "host": "",
                "pid": "",
                "reason": str(error),
            }
        return {
            "name": health.name,
            "state": str(health.state),
            "device": health.device,
            "host": health.host,
            "pid": health.pid,
            "reason": health.reason,
        }

    return asyncio.run(look())
