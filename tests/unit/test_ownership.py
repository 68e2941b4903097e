"""I2: one process owns a device, it is said who, and it ends with the process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from actors.device import Device, Lease, own_a_device, work_clock_for
from actors.errors import DeviceHeld, DeviceUnavailable, HeadSilent, LeaseOver
from actors.ownership import DeviceLock, Holder
from actors.settings import DetectorSettings

HOLDS = """
import sys, pathlib
from actors.ownership import DeviceLock
DeviceLock("x", pathlib.Path(sys.argv[1])).acquire("FaceDetector", sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds the device x for the cluster `home`."""
    return _other(tmp_path, "home")


def _other(folder: Path, cluster: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder), cluster],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def _ended(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_a_second_one_is_told_who_has_it(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    with pytest.raises(DeviceHeld) as told:
        DeviceLock("x", tmp_path).acquire("FaceDetector", "elsewhere")
    assert f"pid {other.pid}" in str(told.value)
    assert "for home" in str(told.value)
    _ended(other)


def test_a_lock_that_the_system_does_not_give_is_said(tmp_path: Path) -> None:
    """And nobody waits for it."""
    with pytest.raises(DeviceUnavailable, match="The lock of the device x cannot be opened"):
        DeviceLock("x", tmp_path / "nowhere").acquire("FaceDetector")


def test_it_ends_with_the_process_however_that_ends(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    _ended(other)
    lock = DeviceLock("x", tmp_path)
    lock.acquire("FaceDetector", "elsewhere")
    holder = lock.holder()
    assert holder is not None
    assert holder.pid == os.getpid()
    lock.release()
    assert lock.holder() is None


def test_two_in_one_process_are_two(tmp_path: Path) -> None:
    first = DeviceLock("x", tmp_path)
    first.acquire("a")
    with pytest.raises(DeviceHeld):
        DeviceLock("x", tmp_path).acquire("b")
    first.release()


def test_the_thread_that_took_it_may_end(tmp_path: Path) -> None:
    """A Windows mutex would be abandoned with it."""
    lock = DeviceLock("x", tmp_path)
    taking = threading.Thread(target=lock.acquire, args=("a",))
    taking.start()
    taking.join()
    with pytest.raises(DeviceHeld):
        DeviceLock("x", tmp_path).acquire("b")
    lock.release()


def test_a_stopped_predecessor_is_ended(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    psutil.Process(other.pid).suspend()
    lock = DeviceLock("x", tmp_path)
    times = iter(range(1000))
    lock.acquire_from_predecessor(
        "FaceDetector", "home", 3.0, clock=lambda: float(next(times)), sleep=lambda _: None
    )
    assert not psutil.pid_exists(other.pid)
    other.communicate()
    lock.release()


def test_a_predecessor_that_is_well_is_left_alone(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    moments = iter([(2, 2), (3, 3), (4, 4)])

    def refreshes(_: float) -> None:
        os.utime(tmp_path / "rayface-x.json", next(moments))

    with pytest.raises(DeviceHeld):
        DeviceLock("x", tmp_path).acquire_from_predecessor("FaceDetector", "home", 3.0, sleep=refreshes)
    assert other.poll() is None
    _ended(other)


def test_another_clusters_owner_is_left_alone_even_stopped(tmp_path: Path) -> None:
    process = _other(tmp_path, "theirs")
    psutil.Process(process.pid).suspend()
    with pytest.raises(DeviceHeld):
        DeviceLock("x", tmp_path).acquire_from_predecessor("FaceDetector", "ours", 0.0)
    assert process.poll() is None
    _ended(process)


def test_a_pid_used_again_is_not_taken_for_the_holder(tmp_path: Path) -> None:
    from actors.ownership import _end_process

    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    _end_process(Holder(bystander.pid, 1.0, 1.0, "FaceDetector", ""))
    assert bystander.poll() is None
    bystander.kill()
    bystander.communicate()


def test_a_machine_with_two_adapters_gives_each_once(tmp_path: Path) -> None:
    both = [Device.parse("directml:0"), Device.parse("directml:1")]
    first, lock1 = own_a_device(both, "FaceDetector", "c", 0.0, tmp_path)
    second, lock2 = own_a_device(both, "FaceDetector-2", "c", 0.0, tmp_path)
    assert [str(first), str(second)] == ["directml:0", "directml:1"]
    with pytest.raises(DeviceHeld):
        own_a_device(both, "FaceDetector-3", "c", 0.0, tmp_path)
    lock1.release()
    lock2.release()


@pytest.mark.parametrize("text", ["cuda:0", "directml:x", ""])
def test_a_device_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="no device"):
        Device.parse(text)


def test_a_lease_ends_in_silence_and_goes_on_when_the_cluster_is_heard() -> None:
    now = [0.0]
    lease = Lease(lambda: now[0])
    now[0] = 1e6
    lease.check()
    lease.limit(10.0)
    now[0] += 10.0
    lease.check()
    now[0] += 0.1
    with pytest.raises(HeadSilent, match="has not heard"):
        lease.check()
    lease.renew()
    lease.check()
    lease.end("Succeeded.")
    lease.renew()
    with pytest.raises(LeaseOver, match="Succeeded"):
        lease.check()


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"pid": "x", "born": 1, "since": 1, "name": "a", "cluster": ""}',
        b'{"pid": 1, "born": "x", "since": 1, "name": "a", "cluster": ""}',
        b'{"pid": 1e400, "born": 1, "since": 1, "name": "a", "cluster": ""}',
        b'{"pid": 1, "born": 1' + 400 * b"0" + b', "since": 1, "name": "a", "cluster": ""}',
    ],
    ids=lambda record: repr(record[:40]),
)
def test_a_record_that_cannot_be_read_names_no_holder(tmp_path: Path, record: bytes) -> None:
    """The lock itself says whether the device is free."""
    (tmp_path / "rayface-x.json").write_bytes(record)
    lock = DeviceLock("x", tmp_path)
    assert lock.holder() is None
    assert not lock.is_used()
    lock.acquire("FaceDetector", "home")
    holder = lock.holder()
    assert holder is not None
    assert holder.pid == os.getpid()
    lock.release()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows counts a thread's time in steps of 16 ms")
def test_only_a_run_on_the_cpu_is_the_work_of_its_thread() -> None:
    settings = DetectorSettings()
    assert work_clock_for(Device("cpu", 0), settings) is time.thread_time
    assert work_clock_for(Device("directml", 0), settings) is None
    assert work_clock_for(Device("cpu", 0), DetectorSettings(opener="mine:Opener")) is None
