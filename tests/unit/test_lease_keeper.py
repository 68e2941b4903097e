"""I2: an owner renews its lease while it hears the cluster; it gives up when it does not, or is succeeded."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from actors.device import Lease
from actors.errors import HeadSilent, LeaseOver
from cluster.deployment.lease import LeaseKeeper
from cluster.node.contract import DRAIN_NOTE
from tests.unit.fake_cluster import quiet

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


def keeper_of(detector: _Detector, cluster: _Cluster, notes: Path | None = None, **how: Any) -> LeaseKeeper:
    log = quiet(lambda: detector.now)
    # As much of a detector as a keeper needs; to be one, it would have to open a device.
    return LeaseKeeper(detector, cluster.read_epoch, 10.0, notes, log, **how)  # type: ignore[arg-type]  # fakes


@pytest.fixture
def world() -> tuple[_Detector, _Cluster, list[int], LeaseKeeper]:
    detector, cluster, ends = _Detector(), _Cluster(), list[int]()
    return detector, cluster, ends, keeper_of(detector, cluster, end=ends.append)


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
    with pytest.raises(HeadSilent):
        detector.lease.check()
    assert ends == []
    detector.now = 59.5
    keeper.step()
    assert ends == [], "a break costs no new start"
    detector.now = 60.5
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


def test_a_silent_head_is_asked_so_often_that_its_return_is_known_at_once() -> None:
    """Each question takes two seconds; the pauses between them are short until the head is heard."""
    detector, cluster = _Detector(), _Cluster()
    pauses: list[tuple[bool, float]] = []

    def sleep(seconds: float) -> None:
        pauses.append((cluster.silent, seconds))
        detector.now += seconds + (2.0 if cluster.silent else 0.0)
        cluster.silent = 3 <= len(pauses) < 9
        if len(pauses) == 12:
            raise SystemExit

    with pytest.raises(SystemExit):
        keeper_of(detector, cluster, sleep=sleep, end=lambda code: None).run()
    assert max(pause_s for is_silent, pause_s in pauses if is_silent) <= 0.1
    assert min(pause_s for is_silent, pause_s in pauses if not is_silent) > 0.5
    detector.lease.check()


def test_the_note_drains_once(tmp_path: Path) -> None:
    detector, cluster = _Detector(), _Cluster()
    keeper = keeper_of(detector, cluster, tmp_path)
    keeper.step()
    assert not detector.drained.is_set()
    (tmp_path / DRAIN_NOTE).touch()
    keeper.step()
    assert detector.drained.wait(5)
    detector.drained.clear()
    keeper.step()
    assert not detector.drained.wait(0)


@pytest.mark.parametrize("error", [OSError("no such device"), ZeroDivisionError("no number")], ids=repr)
def test_an_unforeseen_error_does_not_end_the_renewing(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told, and the next attempt comes soon enough to keep the lease."""
    detector, cluster = _Detector(), _Cluster()
    renewals: list[float] = []
    pauses: list[float] = []

    def keep_fresh() -> None:
        renewals.append(detector.now)
        if len(renewals) < 20:
            raise error

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        detector.now += seconds
        if len(pauses) == 25:
            raise SystemExit

    detector.keep_fresh = keep_fresh  # type: ignore[method-assign]  # only here does it fail
    with pytest.raises(SystemExit):
        keeper_of(detector, cluster, sleep=sleep).run()
    assert len(renewals) == 25
    assert max(pauses) <= 1.0
    assert "Renewing the lease failed with an error that was not foreseen" in caplog.text
    assert str(error) in caplog.text


def test_a_drain_that_could_not_be_begun_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as when the system gives no more threads."""
    detector, cluster = _Detector(), _Cluster()
    keeper = keeper_of(detector, cluster, tmp_path)
    (tmp_path / DRAIN_NOTE).touch()

    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError):
            keeper.step()
    keeper.step()
    assert detector.drained.wait(5)
