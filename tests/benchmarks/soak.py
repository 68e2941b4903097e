"""Whether memory grows under a steady load: the slope of every process of a cluster, in MB an hour.

python -m tests.benchmarks.soak [--minutes N] [--clients N] [--calls-per-s N] [--samples FILE]

A head, a machine that lends a simulated GPU, and backends that ask steadily, all on this machine. Every 15 s
the memory of each process is read that it shares with no other one (USS): a share of common memory would
change whenever another program starts or ends. The slope is a straight line through the samples from minute
10 on. A higher rate shows sooner what grows with each call.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import psutil

from tests.benchmarks.report import machine, table, verdict
from tests.benchmarks.simulated_device import OPENER
from tests.hosts.machines import HERE, Machine, Machines, eventually, processes_with, started_head

_SAMPLE_EVERY_S = 15.0
#: What settles at the start is not counted: caches fill, and Ray starts processes in advance.
_SETTLED_AFTER_S = 600.0
_OURS_MB_PER_H, _RAYS_MB_PER_H = 2.0, 20.0
_IDLE = "Ray: idle worker"
#: Words of command lines, and the role of the process that has them; the first that fits decides.
_ROLES = {
    "tests.benchmarks.steady_client": "backend",
    "cluster.connection.driver": "driver process",
    "cluster.deployment.callback_probe": "callback probe",
    "-m cluster head": "head command",
    "-m cluster join": "join command",
    "DetectorActor": "detector",
    "ray::FaceDetector": "detector",
    "ray::": _IDLE,
    "gcs_server": "Ray: gcs_server",
    "raylet/raylet": "Ray: raylet",
    "dashboard.py": "Ray: dashboard",
    "dashboard/agent.py": "Ray: dashboard agent",
    "runtime_env/agent": "Ray: runtime env agent",
    "ray-dashboard": "Ray: dashboard",
    "multiprocessing": "Ray: dashboard",
    "log_monitor": "Ray: log monitor",
    "monitor.py": "Ray: autoscaler monitor",
    "scripts.py start": "Ray: start",
    "ray.scripts.scripts": "Ray: start",
}


@dataclass(frozen=True)
class Sample:
    """The memory of one process at one moment.

    Attributes:
        at_s: since the load began.
        role: what the process is.
        pid: tells apart processes of one role.
        bytes: its memory that it shares with no other process.
    """

    at_s: float
    role: str
    pid: int
    bytes: int


def role(line: str) -> str:
    """What the process with this command line is; "other" for one that is not known."""
    return next((name for words, name in _ROLES.items() if words in line), "other")


def slope_mb_per_h(samples: list[Sample]) -> float:
    """The slope of a straight line through one process's samples; 0 for fewer than three."""
    if len(samples) < 3:
        return 0.0
    hours = np.array([each.at_s / 3600 for each in samples])
    megabytes = np.array([each.bytes / 1e6 for each in samples])
    return float(np.polyfit(hours, megabytes, 1)[0])


def _read(machines: list[Machine], at_s: float) -> Iterator[Sample]:
    seen: set[int] = set()
    for each in machines:
        for process in processes_with(str(each.folder)):
            # A process may end while it is looked at.
            with suppress(psutil.Error):
                if process.pid not in seen:
                    seen.add(process.pid)
                    line = " ".join(process.cmdline())
                    yield Sample(at_s, role(line), process.pid, process.memory_full_info().uss)


@contextmanager
def _cluster(num_clients: int, calls_per_s: float) -> Iterator[list[Machine]]:
    common = {
        "PYTHONPATH": str(HERE),
        "RAYFACE_DETECTOR__OPENER": OPENER,
        "RAYFACE_DETECTOR__INPUT_SIZE": "320",
    }
    with ExitStack() as stack:
        machines = Machines()
        stack.callback(machines.close)
        head, address = started_head(machines, **common)
        gpu = machines(**common)
        gpu.start("join", "join", address, "--device", f"directml:{gpu.ports}", "--wait")
        for number in range(num_clients):
            command = [sys.executable, "-m", "tests.benchmarks.steady_client", str(calls_per_s)]
            file = head.folder / f"client{number}"
            with file.open("wb") as output:
                client = subprocess.Popen(
                    command,
                    cwd=HERE,
                    env=os.environ | head.variables | {"RAYFACE_CLUSTER__ADDRESS": address},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            head.started.append(client)
        first = str(head.folder / "client0")
        eventually(lambda: "detected" in head.said("client0"), 180, lambda: Path(first).read_text()[-2000:])
        yield [head, gpu]
        print("answers:", head.said("client0").splitlines()[-1], flush=True)


def _watch(machines: list[Machine], minutes: float, file: Path | None) -> list[Sample]:
    samples: list[Sample] = []
    begun = time.monotonic()
    with suppress(KeyboardInterrupt):
        while (at_s := time.monotonic() - begun) <= minutes * 60:
            now = list(_read(machines, at_s))
            samples += now
            if file is not None:
                with file.open("a") as out:
                    out.writelines(json.dumps(asdict(each)) + "\n" for each in now)
            time.sleep(_SAMPLE_EVERY_S)
    return samples


def _report(samples: list[Sample], calls_per_s: float) -> None:
    # Between two calls, a detector is titled as an idle worker.
    detectors = {each.pid for each in samples if each.role == "detector"}
    samples = [replace(each, role="detector") if each.pid in detectors else each for each in samples]
    end_s = max(each.at_s for each in samples)
    # A short trial has no settled part; its figures say nothing.
    from_s = _SETTLED_AFTER_S if end_s > _SETTLED_AFTER_S + 120 else end_s / 3
    rows, worst = [], dict[str, float]()
    for name in sorted({each.role for each in samples}, key=lambda name: (name.startswith("Ray"), name)):
        for pid in sorted({each.pid for each in samples if each.role == name}):
            own = [each for each in samples if each.pid == pid and each.at_s >= from_s]
            if len(own) < 3:
                continue
            slope = slope_mb_per_h(own)
            worst[name] = max(worst.get(name, slope), slope)
            rows.append((name, f"{own[0].bytes / 1e6:.1f}", f"{own[-1].bytes / 1e6:.1f}", f"{slope:+.1f}"))
    print(table(("process", f"MB at minute {from_s / 60:.0f}", "MB at the end", "MB an hour"), rows))
    print(f"\n{end_s / 60:.0f} minutes, {calls_per_s:g} calls a second in all; {machine()}.\n")
    for name, slope in worst.items():
        goal = _RAYS_MB_PER_H if name.startswith("Ray") else _OURS_MB_PER_H
        verdict(f"growth of {name}", f"≤ {goal:g} MB an hour", f"{slope:+.1f}", slope <= goal)


def main() -> None:
    """Run the load, and print the table and the verdicts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="how long the load goes on")
    parser.add_argument("--clients", type=int, default=3, help="how many backends ask")
    parser.add_argument("--calls-per-s", type=float, default=4.0, help="of each backend")
    parser.add_argument("--samples", type=Path, help="a file for all samples, one a line, as JSON")
    given = parser.parse_args()
    with _cluster(given.clients, given.calls_per_s) as machines:
        samples = _watch(machines, given.minutes, given.samples)
    _report(samples, given.clients * given.calls_per_s)


if __name__ == "__main__":
    main()
