"""What a client counts, and how it comes to Ray: in bundles, by its driver process, which is Ray's driver."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Sequence

from actors.faces import Detected, Failed, Outcome, Priority, Rejected
from cluster.client.status import ClientStatus
from cluster.connection.cluster_api import ClusterApi
from cluster.errors import NotAnswered
from cluster.telemetry.metrics import CIRCUIT_VALUES, Observation

_FLUSH_EVERY_S = 2.0
_TIMEOUT_S = 4.0
#: Durations kept while there is no driver process; the oldest are forgotten.
_MOST_DURATIONS = 10_000

Labels = tuple[tuple[str, str], ...]


class ClientMetrics:
    """Counts; what was counted while the cluster was away is there when it is back.

    Args:
        cluster: takes what was counted.
        status: how the client is.

    Attributes:
        outcomes: images so far by detected, rejected and failed.
    """

    def __init__(self, cluster: ClusterApi, status: Callable[[], ClientStatus]) -> None:
        self._cluster = cluster
        self._standing = status
        self._counted: Counter[tuple[str, Labels]] = Counter()
        self._durations: deque[Observation] = deque(maxlen=_MOST_DURATIONS)
        self._told: Counter[tuple[str, Labels]] = Counter()
        self._task: asyncio.Task[None] | None = None
        self.outcomes: Counter[str] = Counter()

    def call(self, outcomes: Sequence[Outcome], priority: Priority, seconds: float) -> None:
        """A call of a client has ended."""
        self._durations.append(("rayface_client_call_seconds", seconds, {"priority": str(priority)}))
        for outcome in outcomes:
            reason = str(outcome.reason) if isinstance(outcome, Rejected | Failed) else ""
            self.outcomes[outcome.status] += 1
            self._count(
                "rayface_client_images_total",
                outcome=outcome.status,
                reason=reason,
                served_by=outcome.stamp.served_by,
                priority=str(priority),
            )
            if outcome.stamp.fallback:
                self._count("rayface_client_fallback_images_total", reason=outcome.stamp.fallback)
            if isinstance(outcome, Detected):
                self._durations.append(
                    ("rayface_client_prepare_seconds", outcome.times.prepare_ms / 1000, {})
                )

    def asked_again(self, num_images: int, priority: Priority) -> None:
        """So many images were busy, and are asked for again."""
        self._counted["rayface_client_asked_again_total", _labels(priority=str(priority))] += num_images

    def open(self) -> None:
        """Send what is counted, from now on."""
        self._task = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Send the rest, if somebody takes it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            with contextlib.suppress(NotAnswered):
                await self.flush(1.0)

    async def flush(self, timeout_s: float = _TIMEOUT_S) -> None:
        """Send one bundle.

        Raises:
            NotAnswered: nobody took it; it is kept.
        """
        status = self._standing()
        grown = self._grown(status)
        counted, durations = dict(self._counted), list(self._durations)
        bundle: list[Observation] = [
            *((name, float(num), dict(labels)) for (name, labels), num in {**counted, **grown}.items()),
            *durations,
            *_as_it_is(status),
        ]
        await self._cluster.record_metrics(bundle, timeout_s=timeout_s)
        self._counted -= Counter(counted)
        self._told.update(grown)
        for _ in durations:
            self._durations.popleft()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_EVERY_S)
            with contextlib.suppress(NotAnswered):
                await self.flush()

    def _grown(self, status: ClientStatus) -> dict[tuple[str, Labels], int]:
        """What others count, and how much it has grown since it was last sent."""
        totals: dict[tuple[str, Labels], int] = {
            ("rayface_client_fallback_refused_total", ()): status.num_fallback_refused,
            ("rayface_client_connections_total", ()): status.num_connections,
        }
        for each in status.detectors:
            opened = ("rayface_client_circuit_opened_total", _labels(detector=each.name, reason=each.reason))
            before = sum(
                num for (name, of), num in self._told.items() if name == opened[0] and of[0][1] == each.name
            )
            totals[opened] = self._told[opened] + each.num_opened - before
        return {key: num - self._told[key] for key, num in totals.items() if num > self._told[key]}

    def _count(self, metric: str, **labels: str) -> None:
        self._counted[metric, _labels(**labels)] += 1


def _as_it_is(status: ClientStatus) -> list[Observation]:
    return [
        ("rayface_client_images", float(status.num_images), {}),
        ("rayface_client_paused", float(bool(status.paused)), {}),
        *(
            ("rayface_client_circuit_state", CIRCUIT_VALUES[each.circuit], {"detector": each.name})
            for each in status.detectors
        ),
    ]


def _labels(**labels: str) -> Labels:
    return tuple(sorted(labels.items()))
