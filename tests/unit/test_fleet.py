"""Many detectors: the least busy is asked, those that are away are passed over, late owners are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from actors.faces import Detected, Failed, Failure, Outcome, Stamp, State
from cluster.errors import DetectorNotReady
from cluster.fleet import Detector, Fleet
from tests.unit.test_client import health
from tests.virtual_time import run


class _Handle:
    """What Ray's handle of a detector does, as far as a fleet asks."""

    def __init__(self, **changes: Any) -> None:
        self.changes = changes
        self.silent = False
        self.health = self

    def remote(self, wait_s: float) -> Any:
        return self._answer()

    async def _answer(self) -> Any:
        if self.silent:
            await asyncio.sleep(1e6)
        return health(**self.changes)


def finding(handles: dict[str, _Handle]) -> Callable[[], Awaitable[dict[str, _Handle]]]:
    async def find() -> dict[str, _Handle]:
        return dict(handles)

    return find


def detected(epoch: int) -> Outcome:
    return Detected(stamp=Stamp("FaceDetector", "", "", epoch), faces=(), width=1, height=1)


def test_the_least_busy_of_the_ready_is_chosen() -> None:
    async def story() -> None:
        handles = {"a": _Handle(), "b": _Handle(), "c": _Handle(state=State.FAULTY, reason="x")}
        fleet = Fleet(finding(handles), 5.0)
        await fleet.start()
        await fleet.look()
        fleet.detectors["a"].num_in_flight = 8
        assert fleet.choose().name == "b"
        fleet.detectors["b"].num_in_flight = 16
        assert fleet.choose().name == "a"
        await fleet.close()

    run(story())


def test_one_that_left_is_passed_over_until_it_is_back() -> None:
    async def story() -> None:
        handles = {"a": _Handle(), "b": _Handle()}
        fleet = Fleet(finding(handles), 5.0)
        await fleet.start()
        await fleet.look()
        fleet.detectors["b"].num_in_flight = 100
        handles["a"].silent = True
        await asyncio.sleep(10.0)
        assert fleet.choose().name == "b"
        handles["a"].silent = False
        await asyncio.sleep(10.0)
        assert fleet.choose().name == "a"
        await fleet.close()

    run(story())


def test_a_new_machine_is_found_by_itself() -> None:
    async def story() -> None:
        handles = {"a": _Handle()}
        fleet = Fleet(finding(handles), 5.0)
        await fleet.start()
        handles["b"] = _Handle()
        await asyncio.sleep(10.0)
        fleet.detectors["a"].num_in_flight = 1
        assert fleet.choose().name == "b"
        await fleet.close()

    run(story())


def test_none_ready_says_why() -> None:
    async def story() -> None:
        fleet = Fleet(finding({"a": _Handle(state=State.FAULTY, reason="It lies.")}), 5.0)
        with pytest.raises(DetectorNotReady, match="It lies"):
            await fleet.start()

    run(story())


def test_a_late_answer_of_an_earlier_owner_is_refused() -> None:
    """I2: the third layer."""
    detector = Detector("a", None)
    detector.hear(health(stamp=Stamp("a", "", "new", 200)))
    outcomes = detector.refuse_late([detected(200), detected(100)])
    assert isinstance(outcomes[0], Detected)
    assert isinstance(outcomes[1], Failed)
    assert outcomes[1].reason is Failure.DETECTOR_LOST
    detector.hear(health(stamp=Stamp("a", "", "old", 100), pid=1))
    assert detector.epoch == 200
    assert isinstance(detector.refuse_late([detected(300)])[0], Detected)
    assert isinstance(detector.refuse_late([detected(200)])[0], Failed)
