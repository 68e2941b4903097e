"""A cluster that is told what to answer, without Ray and without a process."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from actors.call_settings import CallSettings
from actors.encoded_image import SentImage
from actors.faces import Detected, Failed, Failure, Health, Outcome, Priority, Stamp, State
from actors.images import PreparedImage
from cluster.connection.cluster_api import ActorEntry, DriverAddress, Node, Pulse, Value
from cluster.deployment.packed import pack_prepare_order, unpack_prepared
from cluster.deployment.prepare_task import prepare_photo
from cluster.errors import Fault, NotAnswered
from cluster.protocol.rows import PrepareOrder, Unusable
from cluster.telemetry.metrics import Observation
from cluster.telemetry.rate_limit import RateLimitFilter

STAMP = Stamp("FaceDetector on a test", "fake@0", "life-1")


def health(**changes: Any) -> Health:
    """Return the health of a detector that is well, with the given changes."""
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
    """Return an outcome without faces for a photo of that width, from an owner with that epoch."""
    times = replace(Detected(stamp=STAMP, faces=(), width=0, height=0).times, run_ms=run_ms)
    return Detected(stamp=replace(STAMP, epoch=epoch), times=times, faces=(), width=width, height=1)


def failed(failure: Failure, retry_after_s: float | None = None) -> Outcome:
    """Return an outcome that failed for that reason."""
    return Failed(stamp=STAMP, reason=failure, detail=f"{failure} it was", retry_after_s=retry_after_s)


def lost(failure: Failure = Failure.DETECTOR_LOST) -> NotAnswered:
    """Return a fault: no answer came, for that reason."""
    return NotAnswered(Fault.of(failure, f"{failure} it was"))


class FakeCluster:
    """A `ClusterApi` whose detectors follow a script; a test may change everything at any time.

    Attributes:
        seconds: what a call takes.
        silent: names of the detectors that do not answer at all.
        healths: what each detector says of itself, by name.
        calls: how many images each call so far carried.
        probes: how often each detector was asked for its self-test.
        node_list, entries: what Ray's tables say.
        values: the key-value store.
        script: what a detector says of images; None takes `answer`.
        places_none: why no detector can be placed.
        is_away: whether every question comes back without an answer.
        is_closed: whether a client has left it.
        prepared_on: the machine of each photo that was to be made small.
        replaced: the detectors that were placed anew, in order.
        successors: what each says of itself afterwards.
        prepares: photos are made small after this event; None waits for none.
    """

    def __init__(self, *names: str, seconds: float = 0.0) -> None:
        self.why_not = "The cluster is away."
        self.address = "here:1"
        self.num_joined = 1
        self.observed: list[Observation] = []
        self.seconds = seconds
        self.silent: set[str] = set()
        self.healths: dict[str, Health] = {name: health(name=name) for name in names or ("FaceDetector",)}
        self.calls: list[int] = []
        self.probes: Counter[str] = Counter()
        self.node_list: list[Node] = []
        self.entries: dict[str, ActorEntry] = {}
        self.values: dict[str, bytes] = {}
        self.script: Callable[[Sequence[SentImage]], list[Outcome] | Exception] | None = None
        self.places_none: Fault | None = None
        self.is_away = self.is_closed = False
        self.under_way = self.most_under_way = self.num_cancelled = 0
        self.deadlines: list[float] = []
        self.settings: list[CallSettings | None] = []
        self.traces: list[str] = []
        self.prepared_on: list[str] = []
        self.prepares: asyncio.Event | None = None
        self.replaced: list[str] = []
        self.successors: dict[str, Health] = {}

    def answer(self, images: Sequence[SentImage]) -> list[Outcome] | Exception:
        """Return the answer for images when there is no script; an error in it is raised."""
        return [detected(image.width) for image in images]

    async def open(self, *, wait: bool = True) -> None:
        """Do nothing: this cluster is joined already."""

    async def close(self) -> None:
        """Only remember the value."""
        self.is_closed = True

    async def place_detectors(self, *, timeout_s: float) -> list[str]:
        async with self._answering(timeout_s):
            if self.places_none is not None:
                raise NotAnswered(self.places_none)
            return list(self.healths)

    async def list_detectors(self, *, timeout_s: float) -> list[str]:
        async with self._answering(timeout_s):
            return list(self.healths)

    async def remove_detector(self, detector: str, *, timeout_s: float) -> None:
        async with self._answering(timeout_s):
            del self.healths[detector]

    async def replace_detector(self, detector: str, drain_s: float, *, timeout_s: float) -> None:
        async with self._answering(timeout_s):
            self.replaced.append(detector)
            self.healths[detector] = self.successors[detector]

    async def detect(
        self,
        detector: str,
        images: Sequence[SentImage],
        priority: Priority,
        deadline_s: float,
        traceparent: str = "",
        settings: CallSettings | None = None,
        *,
        timeout_s: float,
    ) -> list[Outcome]:
        self.calls.append(len(images))
        self.traces += [traceparent] if traceparent else []
        self.deadlines.append(deadline_s)
        self.settings.append(settings)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            async with self._answering(timeout_s):
                await self._heard(detector)
                await asyncio.sleep(self.seconds)
                answer = (self.script or self.answer)(images)
                if isinstance(answer, Exception):
                    raise answer
                return answer
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        finally:
            self.under_way -= 1

    async def prepare(
        self, node_id: str, encoded: bytes, order: PrepareOrder, *, timeout_s: float
    ) -> PreparedImage | Unusable:
        self.prepared_on.append(node_id)
        async with self._answering(timeout_s):
            if self.prepares is not None:
                await self.prepares.wait()
            return unpack_prepared(*prepare_photo(encoded, pack_prepare_order(order)))

    async def health(self, detector: str, wait_s: float, *, timeout_s: float) -> Health:
        async with self._answering(timeout_s):
            await self._heard(detector)
            return self.healths[detector]

    async def self_test(self, detector: str, wait_s: float, *, timeout_s: float) -> Health:
        self.probes[detector] += 1
        async with self._answering(timeout_s):
            await self._heard(detector)
            return self.healths[detector]

    async def nodes(self, *, timeout_s: float) -> list[Node]:
        async with self._answering(timeout_s):
            return self.node_list

    async def actor_entries(self, *, timeout_s: float) -> dict[str, ActorEntry]:
        async with self._answering(timeout_s):
            return self.entries

    async def driver_address(self, *, timeout_s: float) -> DriverAddress:
        async with self._answering(timeout_s):
            return DriverAddress("aa", "10.0.0.1", 10004)

    async def pulse(self, *, timeout_s: float) -> Pulse:
        async with self._answering(timeout_s):
            return Pulse("")

    async def run_on(self, node_id: str, work: partial[Value], *, timeout_s: float) -> Value:
        async with self._answering(timeout_s):
            return work()

    async def record_metrics(self, observations: Sequence[Observation], *, timeout_s: float) -> None:
        async with self._answering(timeout_s):
            self.observed += observations

    async def put_value(self, key: str, value: bytes, *, timeout_s: float) -> None:
        async with self._answering(timeout_s):
            self.values[key] = value

    async def get_values(self, prefix: str, *, timeout_s: float) -> dict[str, bytes]:
        async with self._answering(timeout_s):
            return {key: value for key, value in self.values.items() if key.startswith(prefix)}

    async def delete_value(self, key: str, *, timeout_s: float) -> None:
        async with self._answering(timeout_s):
            self.values.pop(key, None)

    @asynccontextmanager
    async def _answering(self, timeout_s: float) -> AsyncIterator[None]:
        if self.is_away:
            raise lost()
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError:
            raise NotAnswered(Fault.of(Failure.DEADLINE, "No answer came in time.")) from None

    async def _heard(self, detector: str) -> None:
        if detector in self.silent:
            await asyncio.sleep(1e6)


def quiet(clock: Callable[[], float]) -> logging.Logger:
    """Return a rate-limited log that reads that clock."""
    log = logging.getLogger("test")
    log.filters.clear()
    log.addFilter(RateLimitFilter(clock))
    log.setLevel(logging.INFO)
    return log
