"""Photos of a scan that other machines make small, while the threads of this machine are all busy."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from os import PathLike
from pathlib import Path

from actors.images import ImageSource, PreparedImage
from cluster.background import repeat_async
from cluster.client.call import MAX_QUESTION_BYTES
from cluster.connection.cluster_api import ClusterApi, Node
from cluster.errors import NotAnswered
from cluster.protocol.rows import PrepareOrder, Unusable

_LOOK_EVERY_S = 10.0
_TIMEOUT_S = 10.0
#: A photo that another machine has not made small by then is made small here.
_WITHIN_S = 20.0
#: Files that are read at once. While so many reads hang (a network disk), photos are made small here.
_NUM_READERS = 4


class ClusterPreparing:
    """Lends the CPUs that other machines of the cluster offer to Ray.

    No machine gets more photos at once than it offers CPUs. What a machine does not answer is made small
    here, and that machine gets no photo until the machines are looked at again.

    Args:
        cluster: carries the photos.
        log: told of unforeseen errors; a cluster that is away is none.
        clock: seconds; the event loop's.
        threads: makes the threads that read files, from a number and a name.
    """

    def __init__(
        self,
        cluster: ClusterApi,
        log: logging.Logger,
        clock: Callable[[], float],
        threads: Callable[[int, str], Executor],
    ) -> None:
        self._cluster = cluster
        self._readers = threads(_NUM_READERS, "rayface-read")
        self._num_reading = 0
        self._log = log
        self._clock = clock
        self._num_cpus: dict[str, int] = {}
        self._under_way: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Look at the machines from now on."""
        self._task = asyncio.create_task(
            repeat_async(
                self.look,
                name="Looking for machines that prepare photos",
                log=self._log,
                every_s=_LOOK_EVERY_S,
                expected=(NotAnswered,),
            )
        )

    async def close(self) -> None:
        """Look no more, and end the threads."""
        self._readers.shutdown(wait=False, cancel_futures=True)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> None:
        """Learn which other machines offer CPUs.

        Raises:
            NotAnswered: the cluster cannot be asked.
        """
        own = await self._cluster.driver_address(timeout_s=_TIMEOUT_S)
        nodes = await self._cluster.nodes(timeout_s=_TIMEOUT_S)
        self._num_cpus = {
            node.node_id: num
            for node in nodes
            # Without a port, this machine has not joined, and Ray counts its driver to another one.
            if not (own.port and node.node_id == own.node_id) and (num := _num_cpus(node)) > 0
        }

    def take_cpu(self) -> str | None:
        """Take a free CPU of the machine that has most of them; `prepare` gives it back.

        Returns:
            The machine's node_id; None if no machine has a free CPU.
        """
        free = {node: num - self._under_way[node] for node, num in self._num_cpus.items()}
        node = max(free, key=lambda each: free[each], default=None)
        if node is None or free[node] < 1:
            return None
        self._under_way[node] += 1
        return node

    async def prepare(
        self, node: str, source: ImageSource, order: PrepareOrder, deadline: float
    ) -> PreparedImage | Unusable | None:
        """Let a machine make an encoded photo small.

        Args:
            node: from `take_cpu`.
            source: the encoded photo, or its path.
            order: how it is made small.
            deadline: when nobody waits for it any more, on the clock.

        Returns:
            The small photo, or why it cannot be used; None if it has to be made small here.
        """
        try:
            encoded = await self._read(source)
            seconds = min(_WITHIN_S, deadline - self._clock())
            if encoded is None or seconds <= 0:
                return None
            return await self._cluster.prepare(node, encoded, order, timeout_s=seconds)
        except NotAnswered:
            self._num_cpus.pop(node, None)
            return None
        finally:
            self._under_way[node] -= 1

    async def _read(self, source: ImageSource) -> bytes | None:
        """The bytes of a photo that may travel; None for another, and while all reading threads are busy."""
        if not isinstance(source, str | PathLike):
            return _encoded(source)
        if self._num_reading >= _NUM_READERS:
            return None
        self._num_reading += 1
        reading = self._readers.submit(_encoded, source)
        # Nobody can stop a read that hangs: its thread is busy until it ends, also when nobody waits for it.
        loop = asyncio.get_running_loop()

        def has_read(_: object) -> None:
            # The loop may be closed before a read that hangs has ended.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._count_read)

        reading.add_done_callback(has_read)
        return await asyncio.wrap_future(reading)

    def _count_read(self) -> None:
        self._num_reading -= 1


def _num_cpus(node: Node) -> int:
    return int(node.resources.get("CPU", 0))


def _encoded(source: ImageSource) -> bytes | None:
    """The bytes of a photo that may travel. Preparing it here says why another one cannot be read."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source) if len(source) <= MAX_QUESTION_BYTES else None
    if not isinstance(source, str | PathLike):
        return None
    path = Path(source)
    try:
        is_small = path.is_file() and path.stat().st_size <= MAX_QUESTION_BYTES
        return path.read_bytes() if is_small else None
    except (OSError, ValueError):
        return None
