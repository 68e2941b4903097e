"""I2: an owner renews its lease while it hears the cluster; it gives up when it does not, or is succeeded."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from actors.device import Lease
from actors.errors import LeaseOver
from cluster.deployment.lease import LeaseKeeper
from cluster.node.contract import DRAIN_NOTE

EPOCH = 100


class _Detector:
    """As much of a detector as its keeper touches."""

    def __init__(self) -> None:
        self.now = 0.0
        self.epoch = EPOCH
        self.lease = Lease(lambda: self.now)
        self.lease.limit(10.0)
        self.drained = threading.Event()

    def keep_fresh(self) -> None:
        self.lease.renew()

    def drain_from_outside(self) -> None:
        self.drained.set()


class _Cluster:
    """Answers with an epoch, or not at all."""

    def __init__(self) -> None:
        self.newest = EPOCH
        self.silent = False

    def read_epoch(self) -> int:
        if self.silent:
            raise TimeoutError
        return self.newest


@pytest.fixture
def world() -> tuple[_Detector, _Cluster, list[int], LeaseKeeper]:
    detector, cluster, ends = _Detector(), _Cluster(), list[int]()
    keeper = LeaseKeeper(detector, cluster.read_epoch, 10.0, None, ends.append)  # type: ignore[arg-type]
    return detector, cluster, ends, keeper


def test_a_blip_costs_nothing(world: tuple[_Detector, _Cluster, list[int], LeaseKeeper]) -> None:
    detector, cluster, ends, keeper = world
    cluster.silent = True
    detector.now = 9.0
    keeper.step()
    detector.lease.check()
    cluster.silent = False
    keeper.step()
    detector.now = 18.0
    detector.lease.check()
    assert ends == []


def test_silence_pauses_and_then_ends_the_owner(
    world: tuple[_Detector, _Cluster, list[int], LeaseKeeper],
) -> None:
    detector, cluster, ends, keeper = world
    cluster.silent = True
    detector.now = 10.5
    keeper.step()
    with pytest.raises(LeaseOver):
        detector.lease.check()
    assert ends == []
    detector.now = 20.5
    keeper.step()
    assert ends == [75]


def test_a_machine_that_slept_asks_before_it_gives_up(
    world: tuple[_Detector, _Cluster, list[int], LeaseKeeper],
) -> None:
    detector, _, ends, keeper = world
    detector.now = 50_000.0
    keeper.step()
    detector.lease.check()
    assert ends == []


def test_a_succeeded_owner_never_runs_again(
    world: tuple[_Detector, _Cluster, list[int], LeaseKeeper],
) -> None:
    detector, cluster, ends, keeper = world
    cluster.newest = EPOCH + 1
    keeper.step()
    assert ends == [75]
    detector.lease.renew()
    with pytest.raises(LeaseOver, match="Another process"):
        detector.lease.check()


def test_a_head_that_lost_its_memory_ends_nobody(
    world: tuple[_Detector, _Cluster, list[int], LeaseKeeper],
) -> None:
    _, cluster, ends, keeper = world
    cluster.newest = 0
    keeper.step()
    assert ends == []


def test_the_note_drains_once(tmp_path: Path) -> None:
    detector, cluster = _Detector(), _Cluster()
    keeper = LeaseKeeper(detector, cluster.read_epoch, 10.0, tmp_path)  # type: ignore[arg-type]
    keeper.step()
    assert not detector.drained.is_set()
    (tmp_path / DRAIN_NOTE).touch()
    keeper.step()
    assert detector.drained.wait(5)
    detector.drained.clear()
    keeper.step()
    assert not detector.drained.wait(0)
