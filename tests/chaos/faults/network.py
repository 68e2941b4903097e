"""A bad cable between the head and the GPU's machine, and a machine that gets another address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.chaos.faults.kind import FaultKind, Load
from tests.chaos.site import GPU_ADDRESS, Needs

_OTHER_ADDRESS = GPU_ADDRESS.rpartition(".")[0] + ".9"


def _bad_cable(name: str, words: str, lasts_s: float = 20.0, **orders: Any) -> FaultKind:
    @contextmanager
    def plant(load: Load) -> Iterator[None]:
        assert load.site.wire is not None
        load.site.wire.order(**orders)
        try:
            yield
        finally:
            load.site.wire.order()

    return FaultKind(name, f"{words}, for {lasts_s:.0f} s", plant, lasts_s, Needs(wire=True))


@contextmanager
def _flushed(load: Load) -> Iterator[None]:
    assert load.site.wire is not None
    load.site.wire.flush()
    yield


@contextmanager
def _other_address(load: Load) -> Iterator[None]:
    load.site.give_address(_OTHER_ADDRESS if load.site.gpu_address == GPU_ADDRESS else GPU_ADDRESS)
    yield


KINDS = (
    _bad_cable("loss", "the cable loses 3 of 100 frames", loss=0.03),
    _bad_cable("delay", "the cable takes 100 ms longer each way", delay_ms=100.0),
    _bad_cable("slow", "the cable carries 5 Mbit/s", mbit_s=5.0),
    _bad_cable("reorder", "one of ten frames comes 5 to 60 ms late", reorder=0.1),
    _bad_cable("block-to-gpu", "nothing passes from the head to the GPU's machine", 30.0, blocked="ab"),
    _bad_cable("block-to-head", "nothing passes from the GPU's machine to the head", 30.0, blocked="ba"),
    _bad_cable("cut", "the cable is cut", lasts_s=10.0, blocked="ab ba"),
    FaultKind("flush", "every connection is forgotten on the way", _flushed, 0.0, Needs(wire=True)),
    FaultKind(
        "address",
        "the GPU's machine gets another address",
        _other_address,
        0.0,
        Needs(wire=True, finds_address=True),
    ),
)
