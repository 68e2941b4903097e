"""The driver process: a process of its own that is Ray's driver, so that the backend's process is none.

Ray ends a driver's whole process, without an exception, when its cluster stays away, when another one is
found at its address, or when the object store of its machine is gone; and calls to a head that is gone hang
for ever. All of that happens here, where it costs nothing: `connection` starts another driver process. And
whatever else a backend does with Ray, in a cluster of its own perhaps, is left alone.

    python -m cluster.connection.driver   reads settings and questions from standard input, answers on output
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from actors.faces import Health, Outcome
from actors.images import PreparedImage
from cluster import ray_internals
from cluster.connection.messages import (
    ActorEntry,
    Answer,
    Ask,
    Channel,
    DriverAddress,
    Drop,
    Joined,
    Node,
    NotJoined,
    Pulse,
)
from cluster.deployment import placement
from cluster.deployment.ray_errors import fault_of
from cluster.deployment.ray_metrics import RayMetrics
from cluster.errors import DetectorNotReady, Fault, RayfaceError
from cluster.node.addresses import knock, split_address
from cluster.settings import Settings
from cluster.telemetry.metrics import Observation

_NAMESPACE = b"rayface"
_CALL_TIMEOUT_S = 2.0
#: So long others may reach the head and this process not, before it is taken for stranded.
_STRANDED_AFTER_S = 10.0
_LEAVE_WITHIN_S = 15.0
#: An embedded detector, which ends with this process, has sent its spans by then.
_LAST_SPANS_S = 0.5


class Driver:
    """Carries questions to the cluster that this process has joined, each in a task of its own."""

    def __init__(self, settings: Settings, channel: Channel, address: str) -> None:
        self._settings = settings
        self._channel = channel
        self._address = address
        self._handles: dict[str, placement.Handle] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._finding: asyncio.Task[dict[str, placement.Handle]] | None = None
        self._unheard_since: float | None = None
        self._metrics = RayMetrics()

    async def serve(self, messages: asyncio.Queue[Ask | Drop | None]) -> None:
        """Answer questions until there is a None among them."""
        while (message := await messages.get()) is not None:
            if isinstance(message, Drop):
                if (task := self._tasks.get(message.number)) is not None:
                    task.cancel()
                continue
            task = asyncio.create_task(self._answer(message))
            self._tasks[message.number] = task
            task.add_done_callback(partial(self._done, message.number))

    def _done(self, number: int, task: asyncio.Task[None]) -> None:
        del self._tasks[number]

    async def _answer(self, question: Ask) -> None:
        try:
            value = await getattr(self, question.verb)(*question.arguments)
            answer = Answer(question.number, value)
        except asyncio.CancelledError:
            return
        except DetectorNotReady as error:
            answer = Answer(question.number, fault=Fault.of(error.failure, str(error)))
        except Exception as error:
            answer = Answer(question.number, fault=fault_of(error))
        with contextlib.suppress(EOFError):
            await asyncio.to_thread(self._channel.write, answer)

    async def find(self) -> list[str]:
        """Place what is missing; the names of all detectors.

        Raises:
            DetectorNotReady: there is none, and no machine lends a device.
        """
        return await self._found(placement.place_all)

    async def known(self) -> list[str]:
        """The names of all detectors; places none."""
        return await self._found(placement.find_all)

    async def remove(self, name: str) -> None:
        """Take a detector away for good.

        Raises:
            DetectorNotReady: there is none of that name.
        """
        await asyncio.to_thread(placement.remove, name, self._settings)

    async def nodes(self) -> list[Node]:
        """The machines of the cluster that are in it now."""
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
        self, name: str, images: Sequence[PreparedImage], priority: str, deadline_s: float, *trace: str
    ) -> list[Outcome]:
        """Ask a detector for its outcomes. Ray repeats the call if the detector's process dies with it."""
        outcomes: list[Outcome] = await self._asked(name, "detect", images, priority, deadline_s, *trace)
        return outcomes

    async def health(self, name: str, wait_s: float) -> Health:
        """Ask a detector how it is."""
        health: Health = await self._asked(name, "health", wait_s)
        return health

    async def check(self, name: str, wait_s: float) -> Health:
        """Let a detector prove its device."""
        health: Health = await self._asked(name, "check", wait_s)
        return health

    async def pulse(self) -> Pulse:
        """How this process's own connection is."""
        import ray

        client = ray_internals.store_client()
        node = bytes.fromhex(ray.get_runtime_context().get_node_id())
        try:
            (is_alive,) = await asyncio.to_thread(
                client.check_alive, [ray_internals.node_id_of(node)], _CALL_TIMEOUT_S
            )
        except Exception as error:
            return Pulse(False, await self._why_unheard(error))
        self._unheard_since = None
        # The driver's own node went with its head: calls go on, but the object store under it is gone.
        return Pulse(True, "" if is_alive else "the node that it belonged to is gone")

    async def driver(self) -> DriverAddress:
        """Where this process itself is."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        host, port = await asyncio.to_thread(ray_internals.own_place)
        try:
            with socket.create_server((host, 0)):
                return DriverAddress(node, host, port)
        except OSError:
            # Ray took this process for one of another machine, where it found none here that has joined.
            return DriverAddress(node, host, 0)

    async def run_on(self, node_id: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function of ours on that machine and no other, in a small task there."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node_id, soft=False)
        options = {"name": f"rayface {function.__name__}", "num_cpus": 0, "max_retries": 0}
        return await ray.remote(function).options(scheduling_strategy=there, **options).remote(*arguments)

    async def actors(self) -> dict[str, ActorEntry]:
        """What Ray's own table says of each detector."""
        import ray._private.state as state

        await self.known()
        entries = {}
        for name, handle in self._handles.items():
            # Private, but Ray is pinned and a test looks; the public way needs the dashboard.
            found = await asyncio.to_thread(state.actors, handle._actor_id.hex())
            if found:
                entries[name] = ActorEntry(
                    found["State"],
                    int(found["NumRestarts"]),
                    found["Address"]["IPAddress"],
                    int(found["Address"]["Port"]),
                    ray_internals.death_cause(found["DeathCause"]),
                )
        return entries

    async def observe(self, bundle: Sequence[Observation]) -> None:
        """Put what a client has counted into Ray's metrics."""
        for name, value, tags in bundle:
            self._metrics.observe(name, value, tags)

    async def keep(self, key: str, value: bytes) -> None:
        """Write a note into the cluster's store."""
        await self._store("internal_kv_put", key.encode(), value, True, _NAMESPACE)

    async def kept(self, prefix: str) -> dict[str, bytes]:
        """Every note whose key begins so."""
        keys = await self._store("internal_kv_keys", prefix.encode(), _NAMESPACE)
        values = {key.decode(): await self._store("internal_kv_get", key, _NAMESPACE) for key in keys}
        return {key: value for key, value in values.items() if value is not None}

    async def forget(self, key: str) -> None:
        """Take a note away."""
        await self._store("internal_kv_del", key.encode(), False, _NAMESPACE)

    async def _found(self, find: Callable[[Settings], dict[str, placement.Handle]]) -> list[str]:
        # Asked while the head is gone, Ray does not come back: one thread may wait there, and no more.
        if self._finding is None or self._finding.done():
            self._finding = asyncio.create_task(asyncio.to_thread(find, self._settings))
        self._handles = await asyncio.shield(self._finding)
        return list(self._handles)

    async def _store(self, method: str, *arguments: Any) -> Any:
        call = getattr(ray_internals.store_client(), method)
        return await asyncio.to_thread(call, *arguments, timeout=_CALL_TIMEOUT_S)

    async def _asked(self, name: str, method: str, *arguments: Any) -> Any:
        import ray

        if name not in self._handles:
            await self.find()
        # What Ray's lists of tasks show; its own name for it says nothing of which detector.
        ask = getattr(self._handles[name], method).options(name=f"{name}.{method}")
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
        if "WrongClusterID" in str(error):
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


class Inbox:
    """What comes through the pipe, from the first moment on; a None when nobody is at its other end any more.

    Args:
        channel: read here and nowhere else.
        parent: the process that started this one.
    """

    def __init__(self, channel: Channel, parent: int) -> None:
        self._channel = channel
        self._parent = parent
        self._lock = threading.Lock()
        self._early: list[Ask | Drop | None] = []
        self._deliver: Callable[[Ask | Drop | None], None] = self._early.append
        #: Whether this process may end without more ado when nobody waits for it.
        self.may_exit = False
        threading.Thread(target=self._read, name="read", daemon=True).start()
        if hasattr(os, "fork"):
            threading.Thread(target=self._watch, name="parent", daemon=True).start()

    def into(self, messages: asyncio.Queue[Ask | Drop | None]) -> None:
        """From now on, and what came before, into a queue of the running loop."""
        loop = asyncio.get_running_loop()

        def deliver(message: Ask | Drop | None) -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(messages.put_nowait, message)

        with self._lock:
            self.may_exit = False
            self._deliver = deliver
            for message in self._early:
                deliver(message)

    def _read(self) -> None:
        with contextlib.suppress(EOFError):
            while True:
                self._put(self._channel.read())
        self._put(None)

    def _watch(self) -> None:
        # A child that the backend forked may hold our pipe open after the backend itself is gone.
        while os.getppid() == self._parent:
            time.sleep(2.0)
        self._put(None)

    def _put(self, message: Ask | Drop | None) -> None:
        with self._lock:
            if message is None and self.may_exit:
                os._exit(0)
            self._deliver(message)


def main() -> None:
    """Join, say so, and answer until whoever started this process hangs up or is gone."""
    channel, parent = Channel.of_stdio(), os.getppid()
    try:
        settings = Settings(**channel.read())
        inbox = Inbox(channel, parent)
        # Joining may take Ray a minute. An embedded Ray that is half there is waited for, and then ended.
        inbox.may_exit = settings.cluster.address is not None
        leave = placement.join_or_start(settings)
    except EOFError:
        return
    except RayfaceError as error:
        with contextlib.suppress(EOFError):
            channel.write(NotJoined(str(error)))
        return
    try:
        import ray

        ray_internals.silence_error_listener()
        address = ray.get_runtime_context().gcs_address
        channel.write(Joined(address))
        asyncio.run(_serve(Driver(settings, channel, address), inbox))
    except EOFError:
        pass
    finally:
        if settings.cluster.address is None and settings.tracing.endpoint:
            time.sleep(_LAST_SPANS_S)
        leave()
        os._exit(0)


async def _serve(driver_process: Driver, inbox: Inbox) -> None:
    messages: asyncio.Queue[Ask | Drop | None] = asyncio.Queue()
    inbox.into(messages)
    try:
        await driver_process.serve(messages)
    finally:
        # A thread that waits for a head that is gone would hold this process up for ever: asyncio itself
        # waits for its threads, and so does Ray.
        threading.Timer(_LEAVE_WITHIN_S, os._exit, [0]).start()


if __name__ == "__main__":
    main()
