"""Answers the questions of `ClusterApi` in the driver process, which is a driver of the cluster."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from actors.faces import Health, Outcome, Priority
from actors.images import PreparedImage
from cluster import ray_internals
from cluster.connection.cluster_api import ActorEntry, DriverAddress, Node, Pulse, Value
from cluster.deployment import placement
from cluster.deployment.ray_metrics import RayMetrics
from cluster.node.addresses import knock, split_address
from cluster.ray_internals import KeyValueStore
from cluster.settings import Settings
from cluster.telemetry.metrics import Observation

_CALL_TIMEOUT_S = 2.0
#: So long others may reach the head and this process not, before it is taken for stranded.
_STRANDED_AFTER_S = 10.0


class Handlers:
    """One method for each question of `ClusterApi`, which documents them.

    The methods have the arguments of the Protocol's without `timeout_s`: the backend keeps the time, and the
    task that answers is cancelled when nobody waits for it any more. An error that they raise becomes the
    fault in the answer.

    Args:
        settings: of the backend.
        address: of the cluster that this process has joined.
    """

    def __init__(self, settings: Settings, address: str) -> None:
        self._settings = settings
        self._address = address
        self._handles: dict[str, placement.Handle] = {}
        self._finding: asyncio.Task[dict[str, placement.Handle]] | None = None
        self._unheard_since: float | None = None
        self._metrics = RayMetrics()

    async def place_detectors(self) -> list[str]:
        return await self._found(placement.place_all)

    async def list_detectors(self) -> list[str]:
        return await self._found(placement.find_all)

    async def remove_detector(self, detector: str) -> None:
        await asyncio.to_thread(placement.remove, detector, self._settings)

    async def nodes(self) -> list[Node]:
        import ray

        return [
            Node(
                each["NodeID"],
                each["NodeManagerAddress"],
                each["NodeName"],
                dict(each["Resources"]),
                {
                    "node manager": each["NodeManagerPort"],
                    "object manager": each["ObjectManagerPort"],
                    "metrics": each["MetricsExportPort"],
                },
            )
            for each in await asyncio.to_thread(ray.nodes)
            if each["Alive"]
        ]

    async def detect(
        self,
        detector: str,
        images: Sequence[PreparedImage],
        priority: Priority,
        deadline_s: float,
        traceparent: str = "",
    ) -> list[Outcome]:
        # Left out where it says nothing, so that a detector of an older version understands the call.
        traced = (traceparent,) if traceparent else ()
        # Ray repeats the call if the detector's process dies with it.
        outcomes: list[Outcome] = await self._asked(
            detector, "detect", images, priority.value, deadline_s, *traced
        )
        return outcomes

    async def health(self, detector: str, wait_s: float) -> Health:
        health: Health = await self._asked(detector, "health", wait_s)
        return health

    async def self_test(self, detector: str, wait_s: float) -> Health:
        health: Health = await self._asked(detector, "check", wait_s)
        return health

    async def pulse(self) -> Pulse:
        import ray

        node = ray.get_runtime_context().get_node_id()
        try:
            is_alive = await asyncio.to_thread(ray_internals.is_node_alive, node, _CALL_TIMEOUT_S)
        except Exception as error:
            return Pulse(await self._why_unheard(error))
        self._unheard_since = None
        # The driver's own node went with its head: calls go on, but the object store under it is gone.
        return Pulse("" if is_alive else "the node that it belonged to is gone")

    async def driver_address(self) -> DriverAddress:
        import ray

        node = ray.get_runtime_context().get_node_id()
        host, port = await asyncio.to_thread(ray_internals.own_address)
        try:
            with socket.create_server((host, 0)):
                return DriverAddress(node, host, port)
        except OSError:
            # Ray took this process for one of another machine, where it found none here that has joined.
            return DriverAddress(node, host, 0)

    async def run_on(self, node_id: str, work: partial[Value]) -> Value:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node_id, soft=False)
        options = {"name": f"rayface {work.func.__name__}", "num_cpus": 0, "max_retries": 0}
        task = ray.remote(work.func).options(scheduling_strategy=there, **options)
        value: Value = await task.remote(*work.args, **work.keywords)
        return value

    async def actor_entries(self) -> dict[str, ActorEntry]:
        await self.list_detectors()
        entries = {}
        for name, handle in self._handles.items():
            if (row := await asyncio.to_thread(ray_internals.actor_row, handle)) is not None:
                entries[name] = ActorEntry(*row)
        return entries

    async def record_metrics(self, observations: Sequence[Observation]) -> None:
        for name, value, tags in observations:
            self._metrics.observe(name, value, tags)

    async def put_value(self, key: str, value: bytes) -> None:
        await asyncio.to_thread(KeyValueStore.joined().put, key, value)

    async def get_values(self, prefix: str) -> dict[str, bytes]:
        return await asyncio.to_thread(KeyValueStore.joined().get_all, prefix)

    async def delete_value(self, key: str) -> None:
        await asyncio.to_thread(KeyValueStore.joined().delete, key)

    async def _found(self, find: Callable[[Settings], dict[str, placement.Handle]]) -> list[str]:
        # Asked while the head is gone, Ray does not come back: one thread may wait there, and no more.
        if self._finding is None or self._finding.done():
            self._finding = asyncio.create_task(asyncio.to_thread(find, self._settings))
        self._handles = await asyncio.shield(self._finding)
        return list(self._handles)

    async def _asked(self, detector: str, method: str, *arguments: Any) -> Any:
        import ray

        if detector not in self._handles:
            await self.place_detectors()
        # What Ray's lists of tasks show; its own name for it says nothing of which detector.
        ask = getattr(self._handles[detector], method).options(name=f"{detector}.{method}")
        answer = ask.remote(*arguments)
        try:
            return await answer
        except asyncio.CancelledError:
            # Images that are not yet run are dropped there.
            with contextlib.suppress(Exception):
                ray.cancel(answer)
            raise

    async def _why_unheard(self, error: Exception) -> str:
        """Why this process, of all, does not hear the head; empty while it may just be away."""
        if ray_internals.is_other_cluster(error):
            return "another cluster is at its address now"
        if self._settings.cluster.address is None:
            problem = ""
        else:
            problem = await asyncio.to_thread(knock, *split_address(self._address))
        if problem:
            self._unheard_since = None
            return ""
        now = time.monotonic()
        self._unheard_since = self._unheard_since or now
        is_long = now - self._unheard_since > _STRANDED_AFTER_S
        return "the head answers others, and not this process" if is_long else ""


#: The questions that the driver process answers; it refuses every other name.
HANDLERS: Mapping[str, Callable[..., Awaitable[Any]]] = {
    "place_detectors": Handlers.place_detectors,
    "list_detectors": Handlers.list_detectors,
    "remove_detector": Handlers.remove_detector,
    "detect": Handlers.detect,
    "health": Handlers.health,
    "self_test": Handlers.self_test,
    "nodes": Handlers.nodes,
    "actor_entries": Handlers.actor_entries,
    "driver_address": Handlers.driver_address,
    "pulse": Handlers.pulse,
    "run_on": Handlers.run_on,
    "record_metrics": Handlers.record_metrics,
    "put_value": Handlers.put_value,
    "get_values": Handlers.get_values,
    "delete_value": Handlers.delete_value,
}
