"""The first report of a detector, for which a client waits when it is opened."""

from __future__ import annotations

import asyncio
from typing import Protocol

from actors.faces import Failure, Health, State
from cluster.client.detector import Detector
from cluster.errors import DetectorNotReady

#: A report that the detector gives just in time still has to travel.
_ON_THE_WAY_S = 30.0


class Reports(Protocol):
    """Asks detectors how they are; `DetectorPool` does."""

    async def health(self, name: str, wait_s: float, timeout_s: float) -> Health:
        """How a detector is, after waiting up to `wait_s` seconds for its start."""
        ...

    def hear(self, detector: Detector, health: Health) -> None:
        """Take in what a detector reports."""
        ...


async def first_report(reports: Reports, detector: Detector, timeout_s: float) -> None:
    """Wait until a detector is ready.

    Raises:
        DetectorNotReady: it is not, or it does not fit this client; says why.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout_s
    # What it was placed with is known before its model is open, which may take minutes.
    health = await reports.health(detector.name, 0.0, timeout_s + _ON_THE_WAY_S)
    reports.hear(detector, health)
    if detector.misfit is None and health.state is State.STARTING:
        left_s = max(0.0, until - loop.time())
        health = await reports.health(detector.name, left_s, left_s + _ON_THE_WAY_S)
        reports.hear(detector, health)
    if detector.misfit is not None:
        raise DetectorNotReady(detector.misfit.detail, detector.misfit.failure)
    if health.state is not State.READY:
        raise DetectorNotReady(
            f"{health.name} on {health.host} is {health.state}: {health.detail}",
            health.failure or Failure.NOT_READY,
        )
