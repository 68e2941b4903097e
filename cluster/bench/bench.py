"""Opens a client whose stages are timed, and measures one load after the other."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import psutil

from actors.faces import Health
from actors.images import ImageSource
from cluster.bench.load import Calls, Load
from cluster.bench.measure import Counters, Measured, Plan, measure
from cluster.bench.report import report
from cluster.bench.stages import StageTracer
from cluster.bench.travel import Travel
from cluster.bench.usage import usage
from cluster.bench.windows import Window
from cluster.client.detector_pool import DetectorPool
from cluster.client.face_client import FaceClient
from cluster.client.parts import Parts
from cluster.errors import DetectorNotReady
from cluster.settings import Settings
from cluster.telemetry.setup import tracer_of

_ANSWER_WITHIN_S = 5.0


async def bench(
    settings: Settings,
    images: Sequence[ImageSource],
    about_images: str,
    loads: Sequence[Load],
    calls: Calls,
    plan: Plan,
    tell: Callable[[Load, Window | None], None] = lambda load, window: None,
) -> dict[str, Any]:
    """Measure each load until one is in vain, and return the report as JSON-ready values (`report.report`).

    Args:
        settings: of the client; say which cluster is measured.
        images: are sent in turn.
        about_images: what they are, in words.
        loads: one is measured after the other.
        calls: what each call is.
        plan: how long each load is measured.
        tell: is called when a load begins, with None, and with each of its windows.

    Raises:
        RayfaceError: no detector could be asked.
    """
    tracer = StageTracer(tracer_of(settings.tracing, "rayface-client"))
    made: list[Parts] = []

    def parts(settings: Settings) -> Parts:
        made.append(Parts(settings, tracer=tracer))
        return made[-1]

    async with FaceClient(settings, _parts=parts) as client:
        pool, measured = made[0].pool, list[Measured]()

        async def read() -> Counters:
            healths = await healths_of(pool)
            here = [each.pid for each in healths.values() if _is_here(each)]
            travel = Travel.to(pool.detectors.values(), platform.node())
            return Counters(healths, await asyncio.to_thread(usage, here), tracer.totals(), travel)

        for load in loads:
            tell(load, None)
            measured.append(await measure(client, images, load, calls, plan, read, partial(tell, load)))
            if measured[-1].is_in_vain:
                break
        healths = await healths_of(pool)
    return report(settings, about_images, plan, healths.values(), measured)


async def healths_of(pool: DetectorPool) -> Mapping[str, Health]:
    """What each detector says of itself, by name; one that does not answer is left out."""

    async def asked(name: str) -> Health | None:
        try:
            return await pool.health(name, 0.0, _ANSWER_WITHIN_S)
        except DetectorNotReady:
            return None

    names = list(pool.detectors)
    answers = await asyncio.gather(*map(asked, names))
    return {name: health for name, health in zip(names, answers, strict=True) if health is not None}


def _is_here(health: Health) -> bool:
    """Whether the detector is a process of this machine that can be looked at."""
    return health.host == platform.node() and health.pid != os.getpid() and psutil.pid_exists(health.pid)
