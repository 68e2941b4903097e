"""The task that makes a photo small on another machine of the cluster."""

from __future__ import annotations

import time
from dataclasses import dataclass

from actors.errors import ImageFault
from actors.faces import Rejection
from actors.images import Limits, PreparedImage
from actors.sole_worker import SoleWorker


@dataclass(frozen=True, slots=True)
class PrepareOrder:
    """How a photo is made small.

    Attributes:
        shapes: tensor sizes (height, width) to choose from, in pixels.
        limits: larger photos are refused.
        max_enlargement: factor by which a small photo is enlarged at most.
    """

    shapes: tuple[tuple[int, int], ...]
    limits: Limits
    max_enlargement: float


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why a photo cannot be used, and the milliseconds after which that was known."""

    reason: Rejection
    detail: str
    spent_ms: float


# Ray runs one task at a time in a process, and keeps the process for further ones.
_sole_worker = SoleWorker()


def prepare_photo(encoded: bytes, order: PrepareOrder) -> PreparedImage | Unusable:
    """Make an encoded photo small; runs on the machine that has the cores.

    Ray's own process gets no limits, because it has other work too; a costly photo goes to a worker.
    """
    begun = time.perf_counter()
    try:
        return _sole_worker.prepare(encoded, order.shapes, order.limits, order.max_enlargement)
    except ImageFault as fault:
        return Unusable(fault.reason, fault.detail, (time.perf_counter() - begun) * 1000)
