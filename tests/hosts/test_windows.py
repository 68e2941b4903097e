"""A real Windows Python and Ray under Wine: mutex, Job Object, `rayface join`, photos, a device that lies."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from actors.models import cache_dir
from tests.hosts.lab import need
from tests.hosts.machines import Machine, eventually, processes_with, rows, started_head
from tests.hosts.wine import Wine

_HOLDS = """
import sys
from actors.ownership import DeviceLock
DeviceLock("probe").acquire("FaceDetector", "home")
print("held", flush=True)
import time
time.sleep(600)
"""
_TAKES = """
from actors.errors import DeviceHeld
from actors.ownership import DeviceLock
try:
    DeviceLock("probe").acquire("FaceDetector", "elsewhere")
    print("TAKEN")
except DeviceHeld as held:
    print("HELD", held)
"""
#: A process family whose command starts a grandchild; then this process ends without any notice.
_FAMILY = """
import os, subprocess, sys, time
from pathlib import Path
from cluster.node.process_tree import ProcessTree
sleep = "import time; time.sleep(600)"
child = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleep!r}]); {sleep}"
with open("family.log", "wb") as log:
    family = ProcessTree([sys.executable, "-c", child], dict(os.environ), log)
print("started", flush=True)
if sys.argv[1] == "end":
    time.sleep(3)
    family.end(1.0)
    print("ended", flush=True)
    time.sleep(600)
time.sleep(600)
"""


#: A process that dies with two photos on its device, and the notes that the next process finds.
_FLIES = """
from actors.flight_recorder import FlightRecorder
from actors.ownership import machine_folder
import time
with FlightRecorder(machine_folder() / "probe.flights.json", "test", 3600.0).flight(["one", "other"]):
    print("flying", flush=True)
    time.sleep(600)
"""
_FINDS = """
from actors.flight_recorder import FlightRecorder
from actors.ownership import machine_folder
found = FlightRecorder(machine_folder() / "probe.flights.json", "test", 3600.0)
print("SUSPECTS", found.num_suspects, found.is_suspect("one"), found.is_suspect("third"))
"""
_DOCTOR = """
import subprocess, sys
command = [sys.executable, "-m", "cluster", "doctor", "--json", *sys.argv[1:]]
done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
print(done.stdout, done.stderr if "Traceback" in done.stderr else "", "EXIT", done.returncode)
"""
_ASKS = """
import asyncio
from cluster import load_settings
from cluster.connection.driver_process import DriverProcess
from cluster.errors import ClusterUnavailable
async def ask():
    try:
        await DriverProcess.start(load_settings(cluster={"address": "127.0.0.1:9"}))
    except ClusterUnavailable as error:
        print("TOLD", error)
asyncio.run(ask())
"""
#: A photo is decoded in a worker of Windows, and the worker is ended while it decodes another one.
_DECODES = """
import io, threading
from PIL import Image
from actors.decode_worker import DecodeWorker
from actors.errors import DetectorFault
from actors.images import Limits
from actors.settings import DetectorSettings
limits = Limits.of(DetectorSettings())
worker = DecodeWorker.start(limits.max_decode_bytes)
def ask(size):
    made = io.BytesIO()
    Image.new("RGB", size, (200, 30, 40)).save(made, "PNG", compress_level=1)
    return worker.ask(made.getvalue(), ((640, 640),), limits, 1.0)
photo = ask((400, 300))
print("DECODED", photo.width, photo.height, photo.pixels[10, 10].tolist())
threading.Timer(1.0, worker.end).start()
try:
    ask((12000, 12000))
except DetectorFault as fault:
    print("ENDED", fault, worker.is_alive)
"""
#: Windows takes the limits that a worker gives itself.
_LIMITS_ITSELF = """
from actors import process_limits, windows_job
taken = []
set_limits = windows_job.set_limits
windows_job.set_limits = lambda job, limits: taken.append(set_limits(job, limits))
process_limits.ProcessLimits(10**9).allow_cpu(5.0)
print("TAKEN", taken)
"""


@pytest.fixture(scope="module")
def wine() -> Iterator[Wine]:
    need("wine", "wine", "wineserver", "x86_64-w64-mingw32-gcc")
    folder = Path(tempfile.mkdtemp(prefix="rfw", dir="/var/tmp"))
    made = Wine(folder)
    try:
        made.make()
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)


def _background(wine: Wine, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        wine.command(*arguments),
        env=wine.environment(**variables),
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def _kill_in_wine(wine: Wine, *words: str) -> int:
    """Kill, from outside and without a warning, the Windows processes whose command line holds the words."""
    num_killed = 0
    for process in processes_with(wine.variables["WINEPREFIX"]):
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if all(word in line for word in words) and process.name() not in ("bash", "cat"):
                process.kill()
                num_killed += 1
    return num_killed


def test_a_mutex_is_seen_by_all_and_ends_with_its_owner(wine: Wine) -> None:
    """I2: one process holds the `Global\\\\` mutex; when it is killed, another one gets it."""
    holder = _background(wine, "-c", _HOLDS)
    assert holder.stdout is not None
    assert holder.stdout.readline().strip() == "held"
    told = wine.run("-c", _TAKES)
    assert "HELD" in told
    assert "for home" in told
    assert _kill_in_wine(wine, "DeviceLock", "time.sleep(600)")
    eventually(lambda: "TAKEN" in wine.run("-c", _TAKES), 30)
    holder.wait(20)


def test_what_was_on_the_device_is_known_to_the_next_process(wine: Wine) -> None:
    """I3: the record is written before the run, and survives a kill."""
    flying = _background(wine, "-c", _FLIES)
    assert flying.stdout is not None
    assert flying.stdout.readline().strip() == "flying"
    assert _kill_in_wine(wine, "FlightRecorder", "time.sleep(600)")
    assert "SUSPECTS 2 True False" in wine.run("-c", _FINDS)
    flying.wait(20)


def test_a_driver_process_speaks_through_pipes_there_too(wine: Wine) -> None:
    """A driver process starts, is asked, and ends with a reason."""
    told = wine.run("-c", _ASKS)
    assert "TOLD No Ray cluster can be joined at '127.0.0.1:9'" in told


@pytest.mark.parametrize("how", ["end", "killed"])
def test_a_job_ends_with_all_that_is_in_it(wine: Wine, how: str) -> None:
    """No orphan is left, whether the supervisor ends its processes or is itself killed."""
    keeper = _background(wine, "-c", _FAMILY, how)
    assert keeper.stdout is not None
    assert keeper.stdout.readline().strip() == "started"
    eventually(lambda: len(wine.processes()) >= 3, 30, lambda: str(wine.processes()))
    if how == "end":
        assert keeper.stdout.readline().strip() == "ended"
        eventually(lambda: len(wine.processes()) == 1, 20, lambda: str(wine.processes()))
    _kill_in_wine(wine, "family.log")
    eventually(lambda: not wine.processes(), 20, lambda: str(wine.processes()))
    keeper.wait(20)


def test_a_photo_is_decoded_in_a_worker_that_can_be_ended(wine: Wine) -> None:
    """I3: Wine takes the limits of a worker and does not keep them; that they hold, only Windows can show."""
    assert "TAKEN [True]" in wine.run("-c", _LIMITS_ITSELF)
    said = wine.run("-c", _DECODES)
    assert "DECODED 400 300 [40, 30, 200]" in said
    assert "ENDED Nobody waited for the photo any more; decoding it was ended. False" in said
    eventually(lambda: not wine.processes(), 20, lambda: str(wine.processes()))


def test_the_scheduled_task_is_taken_and_taken_away(wine: Wine) -> None:
    """Wine's scheduler reads the task as Windows' does; whether it runs at log-on, only Windows can show."""
    assert "Registered" in wine.run("-m", "cluster", "install", "192.168.1.5:6379")
    assert "is gone" in wine.run("-m", "cluster", "uninstall")
    said = wine.run("-m", "cluster", "uninstall")
    assert "Perhaps there is no such task" in said
    assert "Traceback" not in said


def _doctor(wine: Wine, *arguments: str, **variables: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Run the doctor; return the exit code and the findings by name. Standard output may hold JSON only."""
    said = wine.run("-c", _DOCTOR, *arguments, timeout_s=300, variables=variables)
    assert "Traceback" not in said, said
    assert "EXIT " in said, said
    text, _, code = said.rpartition("EXIT ")
    return int(code.split()[0]), {each["name"]: each for each in json.loads(text)}


def test_the_doctor_looks_at_windows_without_a_cluster(wine: Wine) -> None:
    """The doctor names facts of Windows, a device that fails its self-test, and a head that is not there."""
    cache = "Z:" + str(cache_dir()).replace("/", "\\")
    code, found = _doctor(wine, "127.0.0.1:9", "--device", "directml:0", RAYFACE_CACHE_DIR=cache)
    assert code == 3
    assert found["python"]["evidence"].endswith("on Windows")
    assert "onnxruntime-directml" in found["onnxruntime"]["evidence"]
    assert found["session"]["verdict"] == "ok"
    assert {"adapters", "firewall", "memory", "object store", "disk"} <= set(found)
    assert found["owner"]["evidence"] == "nobody has directml-0"
    assert found["provider"]["verdict"] == "ok"
    assert "rayface token save" in found["token"]["advice"]
    assert "does not answer" in found["head"]["evidence"]
    assert found["device"]["verdict"] == "wrong"


def test_the_doctor_names_who_holds_the_mutex(wine: Wine) -> None:
    """The doctor names the living holder of the device by its record, and nobody after it was killed."""
    holder = _background(wine, "-c", _HOLDS.replace('"probe"', '"cpu-78"'))
    assert holder.stdout is not None
    assert holder.stdout.readline().strip() == "held"
    _, found = _doctor(wine, "127.0.0.1:9", "--device", "cpu:78")
    assert "cpu-78 belongs to FaceDetector (pid" in found["owner"]["evidence"]
    assert _kill_in_wine(wine, "cpu-78", "time.sleep(600)")
    holder.wait(20)
    _, found = _doctor(wine, "127.0.0.1:9", "--device", "cpu:78")
    assert "who is gone" in found["owner"]["evidence"]


def test_the_doctor_speaks_to_any_console(wine: Wine) -> None:
    """The commands also work on a console without our arrow characters, and before anything was started."""
    said = wine.run("-m", "cluster", "doctor", timeout_s=300)
    assert "wrong head" in said, said
    assert "Traceback" not in said


@pytest.fixture(scope="module")
def head(make_machine: Callable[..., Machine], wine: Wine) -> Machine:
    return started_head(make_machine)[0]


def _address(head: Machine) -> str:
    return head.said("head").partition("rayface join ")[2].split()[0]


def _variables(head: Machine) -> dict[str, str]:
    return {
        "RAY_AUTH_TOKEN": head.variables["RAY_AUTH_TOKEN"],
        "RAYFACE_CACHE_DIR": "Z:" + str(cache_dir()).replace("/", "\\"),
        "RAYFACE_JOIN__OBJECT_STORE_BYTES": "80000000",
        "RAYFACE_JOIN__FIRST_PORT": str(head.ports + 110),
        "RAYFACE_JOIN__FIRST_WORKER_PORT": str(head.ports + 120),
    }


def _detectors(head: Machine) -> list[dict[str, Any]]:
    done = head.run("place", "--address", _address(head), "--json")
    found: list[dict[str, Any]] = json.loads(done.stdout) if done.stdout else [{"state": "none", "pid": 0}]
    return found


def test_a_device_that_cannot_prove_itself_is_refused(wine: Wine, head: Machine) -> None:
    """I4, I5: under Wine, DirectML falls back to the CPU; a join with it ends with that reason."""
    said = wine.run("-m", "cluster", "join", _address(head), "--check", variables=_variables(head))
    assert "ok      way back" in said, said
    assert "ok      device" not in said
    assert "Error: " in said
    assert "fell back to CPUExecutionProvider" in said or "golden photo" in said, said
    assert "Traceback" not in said


@pytest.fixture(scope="module")
def joined(wine: Wine, head: Machine) -> Iterator[Path]:
    """Run `rayface join` on Windows with the CPU of the onnxruntime-directml wheel; return the output."""
    output = wine.folder / "join"
    with output.open("wb") as file:
        process = subprocess.Popen(
            wine.command("-m", "cluster", "join", _address(head), "--device", "cpu:7"),
            env=wine.environment(**_variables(head)),
            stdout=file,
            start_new_session=True,
        )
    yield output
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_photos_are_detected_on_windows(wine: Wine, head: Machine, joined: Path, photos: Path) -> None:
    eventually(lambda: _detectors(head)[0]["state"] == "ready", 180, joined.read_text)
    found = rows(head.run("detect", str(photos), "--json", "--address", _address(head)).stdout)
    assert [row["status"] for row in found] == ["detected"] * 7
    assert sum(len(row["faces"]) for row in found) == 10


def test_a_second_join_on_windows_says_who_has_joined(wine: Wine, head: Machine, joined: Path) -> None:
    said = wine.run("-m", "cluster", "join", _address(head), "--device", "cpu:7", variables=_variables(head))
    assert "has joined already: rayface join (pid" in said


def test_a_killed_owner_on_windows_is_replaced(wine: Wine, head: Machine, joined: Path, photos: Path) -> None:
    before = _detectors(head)[0]
    wine.run("-c", f"import os, signal; os.kill({before['pid']}, signal.SIGTERM)")

    def replaced() -> bool:
        now = _detectors(head)[0]
        return bool(now["state"] == "ready" and now["pid"] != before["pid"])

    eventually(replaced, 120, joined.read_text)
    found = rows(head.run("detect", str(photos), "--json", "--address", _address(head)).stdout)
    assert [row["status"] for row in found] == ["detected"] * 7


def test_join_killed_on_windows_leaves_nothing(wine: Wine, head: Machine, joined: Path) -> None:
    assert "raylet.exe" in wine.processes()
    assert _kill_in_wine(wine, "cluster", "join")
    eventually(lambda: not wine.processes(), 40, lambda: str(wine.processes()))
