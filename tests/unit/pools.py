"""A pool of detectors on a fake cluster, and what tests ask of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from actors.faces import Failure, Outcome, Priority
from cluster.client.circuit_breaker import CircuitState
from cluster.client.detector_pool import DetectorPool
from cluster.client.patience import Patience
from cluster.errors import Fault, NotAnswered
from cluster.settings import CircuitSettings
from tests.unit.fake_cluster import FakeCluster, failed

SETTINGS = CircuitSettings(jitter=0.0)
CLOSED, OPEN, HALF_OPEN = CircuitState
#: For a test in which any fault will do.
FAULT = Fault.of(Failure.INTERNAL, "x")


def pool(cluster: FakeCluster, **changes: Any) -> DetectorPool:
    settings = SETTINGS.model_copy(update=changes)
    return DetectorPool(cluster, settings, logging.getLogger("test"))


async def started(cluster: FakeCluster, **changes: Any) -> DetectorPool:
    made = pool(cluster, **changes)
    await made.start(5.0)
    await made.look()
    made.watch()
    return made


async def ask(pool: DetectorPool, name: str = "FaceDetector", deadline_s: float = 10.0) -> Sequence[Outcome]:
    """One call with one image; no answer is a failure here too."""
    until = asyncio.get_running_loop().time() + deadline_s
    image: Any = type("Image", (), {"width": 1})()
    try:
        return await pool.ask(pool.detectors[name], [image], Priority.INTERACTIVE, until)
    except NotAnswered as error:
        return [failed(error.fault.failure)]


def state(pool: DetectorPool, name: str = "FaceDetector") -> CircuitState:
    return pool.detectors[name].circuit.state(asyncio.get_running_loop().time())


async def chosen(pool: DetectorPool) -> str:
    return (await pool.choose(asyncio.get_running_loop().time() + 1.0, Patience.NOT_NOW)).name
