"""Answers the questions of `ClusterApi` in the driver process, which is a driver of the cluster."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial, wraps
from typing import Any

from actors.faces import Health
from actors.images import PreparedImage
from cluster import ray_internals
from cluster.connection.cluster_api import ActorEntry, DriverAddress, Node, Pulse, Value
from cluster.connection.lost_detector import is_about_the_process, why_lost
from cluster.deployment import placement
from cluster.deployment.packed import (
    PackedCall,
    SharedImage,
    pack_call,
    pack_prepare_order,
    pack_terms,
    unpack_call,
    unpack_health,
    unpack_prepared,
    unpack_value,
)
from cluster.deployment.prepare_task import prepare_photo
from cluster.deployment.ray_metrics import RayMetrics
from cluster.deployment.work_task import order_of, run_work
from cluster.errors import DetectorNotReady, NotAnswered, VersionSkew
from cluster.node.addresses import greet, split_address
from cluster.protocol.identity import Identity, identity, identity_of_labels, skew_sentence, unframed
from cluster.protocol.rows import PrepareOrder, Terms, Unusable
from cluster.ray_internals import KeyValueStore
from cluster.settings import Settings
from cluster.slabs import Slabs
from cluster.telemetry.metrics import Observation

_CALL_TIMEOUT_S = 2.0
#: So long a failed call waits for the head's word on why.
_ROW_WITHIN_S = 1.0
#: A detector may come back on this machine; so the memory is tried again after so long.
_SHARE_AGAIN_S = 60.0
#: Somebody who places a detector anew does so within this time; its name is free meanwhile.
_SUCCESSOR_WITHIN_S = 10.0
_LOOK_FOR_SUCCESSOR_EVERY_S = 0.1
#: After so long in which others reach the head and this process does not, it counts as stranded.
_STRANDED_AFTER_S = 10.0


class Handlers:
    """One method for each question of `ClusterApi`, which documents them.

    Each method has the arguments of the Protocol's method but `timeout_s`: the backend keeps the time, and
    the task that answers is cancelled when nobody waits for the answer any more. An error that a method
    raises becomes the fault in the answer.

    Args:
        settings: the backend's.
        address: the address of the cluster that this process has joined, HOST:PORT.
        slabs: the memory for pixels that this process shares with the backend; None for none.
    """

    def __init__(self, settings: Settings, address: str, slabs: Slabs | None = None) -> None:
        self._settings = settings
        self._address = address
        self._slabs = slabs
        #: Until when pixels are sent to a detector that could not read our memory, on the monotonic clock.
        self._send_pixels_until: dict[str, float] = {}
        self._handles: dict[str, placement.Handle] = {}
        #: The method that answers calls, by detector, with the handle that it belongs to.
        self._asks: dict[str, tuple[placement.Handle, Any]] = {}
        self._finding: asyncio.Task[dict[str, placement.Handle]] | None = None
        self._looking: asyncio.Task[tuple[str, int, str, int, str] | None] | None = None
        self._looked_at: placement.Handle | None = None
        self._unheard_since: float | None = None
        self._metrics = RayMetrics()
        self._prepare_task: Any = None

    def table(self) -> Mapping[str, Callable[..., Awaitable[Any]]]:
        """The questions that a driver process answers, each with its method."""
        return {
            "place_detectors": self.place_detectors,
            "list_detectors": self.list_detectors,
            "remove_detector": self.remove_detector,
            "replace_detector": self.replace_detector,
            "detect": self._with_cause(self.detect),
            "prepare": self.prepare,
            "health": self._with_cause(self.health),
            "self_test": self._with_cause(self.self_test),
            "nodes": self.nodes,
            "actor_entries": self.actor_entries,
            "driver_address": self.driver_address,
            "pulse": self.pulse,
            "run_on": self.run_on,
            "record_metrics": self.record_metrics,
            "put_value": self.put_value,
            "get_values": self.get_values,
            "delete_value": self.delete_value,
        }

    async def place_detectors(self) -> list[str]:
        return await self._found(placement.place_all)

    async def list_detectors(self) -> list[str]:
        return await self._found(placement.find_all)

    async def remove_detector(self, detector: str) -> None:
        await asyncio.to_thread(placement.remove, detector, self._settings)

    async def replace_detector(self, detector: str, drain_s: float) -> None:
        await asyncio.to_thread(placement.replace_one, detector, self._settings, drain_s)
        await self.list_detectors()

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
                identity_of_labels(each["Labels"], each["NodeName"]),
            )
            for each in await asyncio.to_thread(ray.nodes)
            if each["Alive"]
        ]

    async def detect(self, detector: str, photos: PackedCall, terms: Terms) -> bytes:
        import ray

        # Ray repeats the call if the detector's process dies meanwhile.
        handle, ask = self._ask_of(detector, await self._handle(detector))
        begun = time.monotonic()
        if begun < self._send_pixels_until.get(detector, begun):
            photos = self._with_pixels(photos)
        while True:
            left_s = terms.deadline_s - (time.monotonic() - begun)
            # An empty list would cost Ray as much as the photos' head.
            pixels = [photos.pixels] if photos.pixels else []
            left = Terms(terms.priority, left_s, terms.trace, terms.settings)
            answer = ask.remote(pack_terms(left), photos.head, *pixels)
            try:
                outcomes: bytes | None = await _answer_of(answer)
            except ray.exceptions.ActorDiedError:
                # Ray repeats a call if the process dies, and not if the actor was removed. If somebody has
                # placed the detector anew, its name has another actor now, which has not been asked.
                if (known := await self._successor(detector, handle, left_s)) is None:
                    raise
                handle, ask = known
                continue
            if outcomes is not None:
                unframed(outcomes)
                return outcomes
            # The detector is on another machine, or of another user; nothing was run.
            self._send_pixels_until[detector] = time.monotonic() + _SHARE_AGAIN_S
            photos = self._with_pixels(photos)

    def _ask_of(self, detector: str, handle: placement.Handle) -> tuple[placement.Handle, Any]:
        """A detector's handle, and its method that answers calls."""
        if (known := self._asks.get(detector)) is None or known[0] is not handle:
            known = self._asks[detector] = (handle, _method(handle, "answer", f"{detector}.detect"))
        return known

    async def _successor(
        self, detector: str, removed: placement.Handle, left_s: float
    ) -> tuple[placement.Handle, Any] | None:
        """The handle and the method of the actor that has a removed one's name; None if there is none."""
        until = time.monotonic() + min(left_s, _SUCCESSOR_WITHIN_S)
        while time.monotonic() < until:
            with contextlib.suppress(DetectorNotReady):
                await self.place_detectors()
            found = self._handles.get(detector)
            if found is not None and found != removed:
                return self._ask_of(detector, found)
            await asyncio.sleep(_LOOK_FOR_SUCCESSOR_EVERY_S)
        return None

    def _with_pixels(self, photos: PackedCall) -> PackedCall:
        """The same photos, with the pixels that lie in shared memory."""
        images = unpack_call(photos.head, photos.pixels, lambda address: self._slabs)
        return pack_call([each.copied() if isinstance(each, SharedImage) else each for each in images], None)

    async def prepare(self, node_id: str, encoded: bytes, order: PrepareOrder) -> PreparedImage | Unusable:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if self._prepare_task is None:
            # Ray's function is made once: each one is a new function for every worker.
            self._prepare_task = ray.remote(prepare_photo)
        task = self._prepare_task.options(
            name="rayface prepare",
            num_cpus=1,
            # The client makes the photo small itself if no answer comes.
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        )
        head, pixels = await _answer_of(task.remote(encoded, pack_prepare_order(order)))
        return unpack_prepared(head, pixels)

    async def health(self, detector: str, wait_s: float) -> Health:
        ask = _method(await self._handle(detector), "answer_health", f"{detector}.health")
        return unpack_health(await _answer_of(ask.remote(wait_s, identity().tag)))

    async def self_test(self, detector: str, wait_s: float) -> Health:
        ask = _method(await self._handle(detector), "answer_check", f"{detector}.check")
        return unpack_health(await _answer_of(ask.remote(wait_s, identity().tag)))

    async def pulse(self) -> Pulse:
        import ray

        node = ray.get_runtime_context().get_node_id()
        try:
            is_alive = await asyncio.to_thread(ray_internals.is_node_alive, node, _CALL_TIMEOUT_S)
        except Exception as error:
            return Pulse(await self._why_unheard(error))
        self._unheard_since = None
        # If its node is gone, calls still go on, but this driver has no object store any more.
        return Pulse("" if is_alive else "the node that it belonged to is gone")

    async def driver_address(self) -> DriverAddress:
        import ray

        node = ray.get_runtime_context().get_node_id()
        host, port = await asyncio.to_thread(ray_internals.own_address)
        try:
            with socket.create_server((host, 0)):
                return DriverAddress(node, host, port)
        except OSError:
            # No node of this machine has joined, so Ray counts this process to another machine.
            return DriverAddress(node, host, 0)

    async def run_on(self, node_id: str, work: partial[Value]) -> Value:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node_id, soft=False)
        options = {"name": f"rayface {work.func.__name__}", "num_cpus": 0, "max_retries": 0}
        task = ray.remote(run_work).options(scheduling_strategy=there, **options)
        value: Value = unpack_value(await task.remote(order_of(work)))
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

    def _with_cause(self, ask: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """The same question; a fault about the detector's process says what the head knows of the process."""

        @wraps(ask)
        async def asked(detector: str, *arguments: Any) -> Any:
            try:
                return await ask(detector, *arguments)
            except Exception as error:
                if not is_about_the_process(error):
                    raise
                raise NotAnswered(why_lost(error, await self._entry(detector))) from error

        return asked

    async def _entry(self, detector: str) -> ActorEntry | None:
        """What the head knows of a detector's process; None if it does not say it at once."""
        if (handle := self._handles.get(detector)) is None:
            return None
        # As for `_found`: no more than one thread may wait for a head that is gone.
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(asyncio.to_thread(ray_internals.actor_row, handle))
            self._looking.add_done_callback(_ask_nobody)
        elif self._looked_at is not handle:
            return None
        self._looked_at = handle
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_ROW_WITHIN_S):
                row = await asyncio.shield(self._looking)
                return ActorEntry(*row) if row is not None else None
        return None

    async def _found(self, find: Callable[[Settings], dict[str, placement.Handle]]) -> list[str]:
        # While the head is gone, the call into Ray does not return. No more than one thread may wait in it.
        if self._finding is None or self._finding.done():
            self._finding = asyncio.create_task(asyncio.to_thread(find, self._settings))
            self._finding.add_done_callback(_ask_nobody)
        self._handles = await asyncio.shield(self._finding)
        return list(self._handles)

    async def _handle(self, detector: str) -> placement.Handle:
        """The handle by which a detector is called. Each call is named after it, for Ray's lists of tasks."""
        if detector not in self._handles:
            await self.place_detectors()
        return self._handles[detector]

    async def _why_unheard(self, error: Exception) -> str:
        """Why this process cannot reach the head and others can; empty while the head may just be away."""
        if ray_internals.is_other_cluster(error):
            return "another cluster is at its address now"
        if self._settings.cluster.address is None:
            problem = ""
        else:
            # A process that hangs still has its connections accepted; only a reaction shows that it is well.
            problem = await asyncio.to_thread(greet, *split_address(self._address))
        if problem:
            self._unheard_since = None
            return ""
        now = time.monotonic()
        self._unheard_since = self._unheard_since or now
        is_long = now - self._unheard_since > _STRANDED_AFTER_S
        return "the head answers others, and not this process" if is_long else ""


def _method(handle: placement.Handle, method: str, name: str) -> Any:
    """A method of a detector, whose calls have this name in Ray's lists.

    Raises:
        VersionSkew: the detector is of a time before there was a protocol.
    """
    try:
        return getattr(handle, method).options(name=name)
    except AttributeError:
        old = Identity("", "", "the detector's machine")
        raise VersionSkew(skew_sentence(old, identity())) from None


def _ask_nobody(done: asyncio.Future[Any]) -> None:
    """If nobody waits any more, nobody asks why it failed; asyncio would print that later."""
    if not done.cancelled():
        done.exception()


async def _answer_of(call: Any) -> Any:
    """Wait for the answer to a call that is under way; on cancellation, cancel the call too."""
    import ray

    try:
        return await call
    except asyncio.CancelledError:
        # The detector drops the images that it has not run yet.
        with contextlib.suppress(Exception):
            ray.cancel(call)
        raise
