"""What a client counts, and how that reaches Ray: in bundles, through the driver process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence

from actors.faces import Detected, Failed, Outcome, Priority, Rejected, Stamp
from cluster.background import repeat_async
from cluster.client.status import ClientStatus
from cluster.connection.cluster_api import ClusterApi
from cluster.errors import Fault, NotAnswered
from cluster.telemetry.metrics import CIRCUIT_VALUES, Observation
from cluster.telemetry.rate_limit import rate_limited_log

_FLUSH_EVERY_S = 2.0
_TIMEOUT_S = 4.0
#: Durations that are kept while the cluster is away; the oldest are forgotten.
_MOST_DURATIONS = 10_000

Labels = tuple[tuple[str, str], ...]


class ClientMetrics:
    """Counts what happens, once and when it happens, and sends the counts every few seconds.

    What was counted while the cluster was away is sent when it is back.

    Args:
        cluster: takes the counts.
        status: gives the client's status, for values that are measured and not counted.
        log: told of unforeseen errors; a cluster that is away is none.

    Attributes:
        outcomes: images so far, by "detected", "rejected" and "failed".
    """

    def __init__(
        self, cluster: ClusterApi, status: Callable[[], ClientStatus], log: logging.Logger | None = None
    ) -> None:
        self._cluster = cluster
        self._status = status
        self._log = log or rate_limited_log("rayface.client")
        self._counted: Counter[tuple[str, Labels]] = Counter()
        self._durations: deque[Observation] = deque(maxlen=_MOST_DURATIONS)
        self._task: asyncio.Task[None] | None = None
        self.outcomes: Counter[str] = Counter()

    def call_ended(self, outcomes: Sequence[Outcome], priority: Priority, seconds: float) -> None:
        """Count a call of the client, and each of its images by outcome."""
        self._durations.append(("rayface_client_call_seconds", seconds, {"priority": str(priority)}))
        kinds: Counter[tuple[str, str, Stamp]] = Counter()
        for outcome in outcomes:
            reason = str(outcome.reason) if isinstance(outcome, Rejected | Failed) else ""
            kinds[outcome.status, reason, outcome.stamp] += 1
            if isinstance(outcome, Detected):
                self._durations.append(
                    ("rayface_client_prepare_seconds", outcome.times.prepare_ms / 1000, {})
                )
        for (status, reason, stamp), num in kinds.items():
            self.outcomes[status] += num
            self._count(
                "rayface_client_images_total",
                num,
                outcome=status,
                reason=reason,
                served_by=stamp.served_by,
                priority=str(priority),
            )
            if stamp.fallback:
                self._count("rayface_client_fallback_images_total", num, reason=stamp.fallback)

    def asked_again(self, num_images: int, priority: Priority) -> None:
        """Count images that got "not now" and are asked for again."""
        self._count("rayface_client_asked_again_total", num_images, priority=str(priority))

    def circuit_opened(self, detector: str, cause: Fault) -> None:
        """Count a circuit that was closed and has opened."""
        self._count("rayface_client_circuit_opened_total", detector=detector, reason=str(cause.failure))

    def fallback_refused(self) -> None:
        """Count an image that the policy gave to the CPU and that the CPU did not answer."""
        self._count("rayface_client_fallback_refused_total")

    def joined(self) -> None:
        """Count a driver process that has joined the cluster."""
        self._count("rayface_client_connections_total")

    def open(self) -> None:
        """Send the counts every few seconds, from now on."""
        self._task = asyncio.create_task(
            repeat_async(
                self.flush,
                name="Sending the client's metrics",
                log=self._log,
                every_s=_FLUSH_EVERY_S,
                expected=(NotAnswered,),
            )
        )

    async def close(self) -> None:
        """Send the rest, if the cluster takes it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            with contextlib.suppress(NotAnswered):
                await self.flush(1.0)

    async def flush(self, timeout_s: float = _TIMEOUT_S) -> None:
        """Send one bundle.

        Raises:
            NotAnswered: it was not taken; the counts are kept for the next bundle.
        """
        counted, self._counted = self._counted, Counter()
        durations, self._durations = self._durations, deque(maxlen=_MOST_DURATIONS)
        try:
            bundle: list[Observation] = [
                *((name, float(num), dict(labels)) for (name, labels), num in counted.items()),
                *durations,
                *_measured(self._status()),
            ]
            await self._cluster.record_metrics(bundle, timeout_s=timeout_s)
        except BaseException:
            self._counted.update(counted)
            self._durations = deque([*durations, *self._durations], maxlen=_MOST_DURATIONS)
            raise

    def _count(self, metric: str, num: int = 1, **labels: str) -> None:
        self._counted[metric, tuple(sorted(labels.items()))] += num


def _measured(status: ClientStatus) -> list[Observation]:
    """The values that are measured: how many, or in which state, now."""
    return [
        ("rayface_client_images", float(status.num_images), {}),
        ("rayface_client_paused", float(bool(status.paused)), {}),
        *(
            ("rayface_client_circuit_state", CIRCUIT_VALUES[each.circuit], {"detector": each.name})
            for each in status.detectors
        ),
    ]
