"""The time from start to first outcome, and the parts of that time.

python -m tests.benchmarks.start [NUM_ROUNDS]           a client on a cold embedded Ray, beside Ray alone
python -m tests.benchmarks.start detect [NUM_ROUNDS]    `rayface detect ONE_PHOTO`, in turns with its own Ray
                                                        and with the cluster of `rayface up` (Linux)
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[2]

_RAYS_OWN = """
import json, time
begun = time.perf_counter()
import ray
ray.init(include_dashboard=False, num_cpus=1, log_to_driver=False, logging_level="ERROR")
started = time.perf_counter()
@ray.remote
class Empty:
    def answer(self): return 1
ray.get(Empty.remote().answer.remote())
print(json.dumps({"import and ray.init": started - begun, "an empty actor": time.perf_counter() - started}))
"""

_LOAD = """
import json, time
begun = time.perf_counter()
from actors.face_model import FaceModel
from actors.guard import Guard
from actors.models import ready_model
from actors.session import OnnxSessionOpener
from actors.settings import DetectorSettings
settings = DetectorSettings()
model = FaceModel(ready_model(settings), OnnxSessionOpener("cpu"), settings, Guard(2))
loaded = time.perf_counter()
model.warm_up()
print(json.dumps({"imports, model and session": loaded - begun, "warm-up": time.perf_counter() - loaded}))
"""

_OURS = """
import json, sys, time
begun = time.perf_counter()
from cluster import BlockingFaceClient
client = BlockingFaceClient()
connected = time.perf_counter()
(outcome,) = client.detect([sys.argv[1]])
ended = time.perf_counter()
assert outcome.status == "detected"
inside = {f"of it, in the detector: {name}": ms / 1000 for name, ms in client.health().start_ms.items()}
client.close()
print(json.dumps({"until READY": connected - begun, "first outcome": ended - connected} | inside))
"""


def _run(program: str) -> dict[str, float]:
    photo = HERE / "tests" / "photos" / "astronaut.jpg"
    done = subprocess.run(
        [sys.executable, "-c", program, str(photo)], cwd=HERE, capture_output=True, text=True, check=True
    )
    parts: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return parts


def _command(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `rayface …` with a state folder of its own."""
    return subprocess.run(
        [sys.executable, "-m", "cluster", *arguments],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"XDG_STATE_HOME": str(home)},
    )


def _detect(home: Path) -> tuple[float, dict[str, float], float]:
    """Seconds to the first outcome, those of each stage, and processor seconds of the command."""

    def used_s() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before_s = used_s()
    photo = HERE / "tests" / "photos" / "astronaut.jpg"
    said = json.loads(_command(home, "detect", str(photo), "--json", "--timings").stderr.splitlines()[-1])
    return said["first_outcome_s"], said["stages_s"], used_s() - before_s


def measure_detect(num_rounds: int = 5) -> None:
    """Print each run of the command, and the medians."""
    with tempfile.TemporaryDirectory() as own, tempfile.TemporaryDirectory() as kept:
        homes = {"own Ray": Path(own), "rayface up": Path(kept)}
        whole: dict[str, list[float]] = {name: [] for name in homes}
        processor: dict[str, list[float]] = {name: [] for name in homes}
        _command(Path(kept), "up")
        try:
            for number in range(num_rounds):
                for name, home in homes.items():
                    seconds, stages, used_s = _detect(home)
                    whole[name].append(seconds)
                    processor[name].append(used_s)
                    parts = ", ".join(f"{stage} {spent:.2f}" for stage, spent in stages.items())
                    print(
                        f"round {number + 1}, {name:<10} {seconds:6.2f} s ({parts}); "
                        f"load {os.getloadavg()[0]:.1f}"
                    )
        finally:
            _command(Path(kept), "down")
    for name in homes:
        print(
            f"{name:<10} median of {num_rounds}: first outcome after {statistics.median(whole[name]):.2f} s; "
            f"processor time of it and of what it waits for {statistics.median(processor[name]):.2f} s"
        )
    ratio = statistics.median(a / b for a, b in zip(*whole.values(), strict=True))
    print(f"own Ray : rayface up, median of the rounds' ratios = {ratio:.1f}")


def main(num_rounds: int = 5) -> None:
    """Print the parts and the ratio of each round."""
    ratios: list[Any] = []
    for number in range(num_rounds):
        rays, load, ours = _run(_RAYS_OWN), _run(_LOAD), _run(_OURS)
        whole = ours["until READY"] + ours["first outcome"]
        ratios.append(whole / (sum(rays.values()) + sum(load.values())))
        print(f"round {number + 1}: ratio {ratios[-1]:.3f}")
        for title, parts in (("Ray alone", rays), ("model alone", load), ("rayface", ours)):
            print(f"  {title:<12}" + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in parts.items()))
    print(
        "start to first outcome : (Ray's own start + the model's load and warm-up), "
        f"median of {num_rounds} = {statistics.median(ratios):.3f} (wanted: at most 1.5)"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["detect"]:
        measure_detect(*map(int, sys.argv[2:]))
    else:
        main(*map(int, sys.argv[1:]))
