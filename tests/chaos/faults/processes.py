"""Processes that stop for a while, or are killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

from tests.chaos.faults.kind import FaultKind, Load
from tests.hosts.machines import eventually

_STOPPED_S = 15.0
#: The load is one process more than the machines have, so its stop is shorter than a person's deadline.
_BACKEND_STOPPED_S = 8.0
_FIND_WITHIN_S = 60.0

Found = list[psutil.Process]


def _raylet(load: Load) -> Found:
    raylet = load.site.raylet()
    return [raylet] if raylet else []


def _detector(load: Load) -> Found:
    return load.site.detectors()


def _driver(load: Load) -> Found:
    driver = load.site.driver(load.files[0])
    return [driver] if driver else []


def _store(load: Load) -> Found:
    store = load.site.store()
    return [store] if store else []


def _backend(load: Load) -> Found:
    return [psutil.Process(load.site.callers[load.files[0]].pid)]


def _found(find: Callable[[Load], Found], load: Load) -> Found:
    """The processes; a fault that hits nobody would be no fault."""
    found: Found = eventually(lambda: find(load), _FIND_WITHIN_S, load.site.said)
    return found


def _stopped(name: str, words: str, find: Callable[[Load], Found], lasts_s: float) -> FaultKind:
    @contextmanager
    def plant(load: Load) -> Iterator[None]:
        found = _found(find, load)
        for process in found:
            process.suspend()
        try:
            yield
        finally:
            for process in found:
                # The others may have given it up meanwhile, and ended it.
                if process.is_running():
                    process.resume()

    return FaultKind(name, f"{words}, stopped for {lasts_s:.0f} s", plant, lasts_s)


def _killed(name: str, words: str, find: Callable[[Load], Found]) -> FaultKind:
    @contextmanager
    def plant(load: Load) -> Iterator[None]:
        for process in _found(find, load):
            process.kill()
        yield

    return FaultKind(name, f"{words}, killed", plant, lasts_s=0.0)


KINDS = (
    _stopped("stop-raylet", "the raylet of the GPU's machine", _raylet, _STOPPED_S),
    _stopped("stop-detector", "the detector's process", _detector, _STOPPED_S),
    _stopped("stop-driver", "a backend's driver process", _driver, _STOPPED_S),
    _stopped("stop-store", "the head's store", _store, _STOPPED_S),
    _stopped("stop-backend", "a backend", _backend, _BACKEND_STOPPED_S),
    _killed("kill-raylet", "the raylet of the GPU's machine", _raylet),
    _killed("kill-detector", "the detector's process", _detector),
    _killed("kill-driver", "a backend's driver process", _driver),
)
