"""A road to a cluster that is told what to answer; no Ray, no process."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from actors.faces import Detected, Failed, Failure, Health, Outcome, Stamp, State
from cluster.errors import Fault, NotAnswered
from cluster.telemetry.rate_limit import RateLimitFilter

STAMP = Stamp("FaceDetector on a test", "fake@0", "life-1")


def health(**changes: Any) -> Health:
    """Of a detector that is well, but for the changes."""
    known = Health(
        name="FaceDetector",
        state=State.READY,
        detail="",
        failure=None,
        provider="CPUExecutionProvider",
        provider_requested="CPUExecutionProvider",
        device="cpu:0",
        owner_since=None,
        stamp=STAMP,
        host="here",
        pid=1,
        uptime_s=0,
        golden_age_s=0,
        shapes=((64, 64),),
        buckets=(),
        num_lanes=1,
        start_ms={},
        num_queued=0,
        num_running=0,
        num_detected=0,
        num_rejected=0,
        num_failed=0,
    )
    return replace(known, **changes)


def detected(width: int, epoch: int = 0, run_ms: float = 1.0) -> Outcome:
    """No faces, on a photo so wide, by an owner of that epoch."""
    times = replace(Detected(stamp=STAMP, faces=(), width=0, height=0).times, run_ms=run_ms)
    return Detected(stamp=replace(STAMP, epoch=epoch), times=times, faces=(), width=width, height=1)


def failed(failure: Failure, retry_after_s: float | None = None) -> Outcome:
    """Ours, for that reason."""
    return Failed(stamp=STAMP, reason=failure, detail=f"{failure} it was", retry_after_s=retry_after_s)


def lost(failure: Failure = Failure.DETECTOR_LOST) -> NotAnswered:
    """No answer, for that reason."""
    return NotAnswered(Fault.of(failure, f"{failure} it was"))


class Road:
    """The detectors behind it, each with a script; everything of it may be exchanged at any time.

    Attributes:
        seconds: what a call takes.
        silent: names of those that do not answer at all.
        healths: by name; what each says of itself.
        calls: images in each call so far.
        probes: how often each was asked to prove itself.
    """

    def __init__(self, *names: str, seconds: float = 0.0) -> None:
        self.why_not = "The cluster is away."
        self.address = "here:1"
        self.num_joined = 1
        self.observed: list[Any] = []
        self.seconds = seconds
        self.silent: set[str] = set()
        self.healths: dict[str, Health] = {name: health(name=name) for name in names or ("FaceDetector",)}
        self.calls: list[int] = []
        self.probes: Counter[str] = Counter()
        self.notes: dict[str, bytes] = {}
        self.under_way = self.most_under_way = self.num_cancelled = 0
        self.deadlines: list[float] = []
        self.traces: list[str] = []

    def answer(self, images: Sequence[Any]) -> Any:
        """What a detector says; an exception is raised."""
        return [detected(image.width) for image in images]

    async def ask(self, verb: str, *arguments: Any, timeout_s: float) -> Any:
        """As the real one."""
        try:
            async with asyncio.timeout(timeout_s):
                return await getattr(self, f"_{verb}")(*arguments)
        except TimeoutError:
            raise NotAnswered(Fault.of(Failure.DEADLINE, "No answer came in time.")) from None

    async def _find(self) -> list[str]:
        return list(self.healths)

    async def _health(self, name: str, wait_s: float) -> Health:
        await self._heard(name)
        return self.healths[name]

    async def _check(self, name: str, wait_s: float) -> Health:
        self.probes[name] += 1
        await self._heard(name)
        return self.healths[name]

    async def _detect(
        self, name: str, images: Sequence[Any], priority: str, deadline_s: float, *trace: str
    ) -> Any:
        self.calls.append(len(images))
        self.traces += trace
        self.deadlines.append(deadline_s)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self._heard(name)
            await asyncio.sleep(self.seconds)
            answer = self.answer(images)
            if isinstance(answer, Exception):
                raise answer
            return answer
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        finally:
            self.under_way -= 1

    async def _observe(self, bundle: Sequence[Any]) -> None:
        self.observed += bundle

    async def _keep(self, key: str, value: bytes) -> None:
        self.notes[key] = value

    async def _kept(self, prefix: str) -> dict[str, bytes]:
        return {key: value for key, value in self.notes.items() if key.startswith(prefix)}

    async def _forget(self, key: str) -> None:
        self.notes.pop(key, None)

    async def _heard(self, name: str) -> None:
        if name in self.silent:
            await asyncio.sleep(1e6)


def quiet(clock: Callable[[], float]) -> logging.Logger:
    """A sparing log on that clock."""
    log = logging.getLogger("test")
    log.filters.clear()
    log.addFilter(RateLimitFilter(clock))
    log.setLevel(logging.INFO)
    return log
