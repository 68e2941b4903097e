"""The reference: a bare async Ray actor with a micro-batcher on the same simulated GPU, and the same bytes.

It has no token, no retries, no deadlines, no circuit and no outcome, and its caller is Ray's driver itself.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks import heartbeat
from tests.benchmarks.loads import Server
from tests.benchmarks.sides.process import RAY_ROLES, Side, serve
from tests.benchmarks.simulated_device import GAUGE_VARIABLE, SleepingDevice

_MAX_BATCH = 32


def bare_actor(folder: Path, stalls: Path | None = None) -> Side:
    """The bare actor as a child process.

    Args:
        folder: holds the device's gauge.
        stalls: holds the stalls of the event loops; None measures none.
    """
    variables = {
        GAUGE_VARIABLE: str(folder / "bare.gauge"),
        # The images travel inside the call, as ours may.
        "RAY_max_direct_call_object_size": "12000000",
        "RAY_task_rpc_inlined_bytes_limit": "64000000",
        # Ray uses a token wherever it finds one.
        "RAY_AUTH_MODE": "disabled",
    }
    if stalls is not None:
        variables[heartbeat.STALLS_VARIABLE] = str(stalls)
    return Side("tests.benchmarks.sides.bare_actor", "bare actor", variables)


class BareActor:
    """Runs what has arrived as one batch, as soon as the last one is done."""

    def __init__(self) -> None:
        self._queue: list[tuple[np.ndarray[Any, Any], asyncio.Future[int]]] = []
        self._running: asyncio.Task[None] | None = None
        self._device = SleepingDevice()
        self._beats = False

    async def detect(self, images: Sequence[np.ndarray[Any, Any]]) -> list[int]:
        """The number of faces in each image, which is 1."""
        loop = asyncio.get_running_loop()
        if not self._beats:
            self._beats = True
            heartbeat.beat("detector")
        answers: list[asyncio.Future[int]] = [loop.create_future() for _ in images]
        self._queue += zip(images, answers, strict=True)
        if self._running is None:
            self._running = loop.create_task(self._run())
        return await asyncio.gather(*answers)

    async def _run(self) -> None:
        while self._queue:
            batch, self._queue = self._queue[:_MAX_BATCH], self._queue[_MAX_BATCH:]
            images = [image for image, _ in batch]
            await asyncio.get_running_loop().run_in_executor(None, self._run_batch, images)
            for _, answer in batch:
                answer.set_result(1)
        self._running = None

    def _run_batch(self, images: Sequence[np.ndarray[Any, Any]]) -> None:
        tensor = np.zeros((len(images), *images[0].shape), dtype=np.uint8)
        for slot, image in enumerate(images):
            tensor[slot] = image
        self._device.run(len(tensor))


class _Actor:
    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def detect(self, images: Sequence[Any]) -> list[int | str]:
        answers: list[int | str] = await self._handle.detect.remote(images)
        return answers


@asynccontextmanager
async def _opened() -> AsyncIterator[Server]:
    import ray

    heartbeat.beat("client")
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=256_000_000,
        _temp_dir=os.environ["RAY_TMPDIR"],
        _node_ip_address="127.0.0.1",
    )
    try:
        handle = ray.remote(BareActor).options(num_cpus=0, max_restarts=-1).remote()
        actor = _Actor(handle)
        await actor.detect([np.zeros((8, 8, 3), dtype=np.uint8)])
        yield actor
    finally:
        ray.shutdown()


if __name__ == "__main__":
    serve(_opened, RAY_ROLES)
