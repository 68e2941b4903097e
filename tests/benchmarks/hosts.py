"""Throughput of 1, 2, 4 and 8 simulated machines in one cluster, each with a simulated GPU of its own.

python -m tests.benchmarks.hosts [SECONDS] [--hosts 1 2 4 8] [--run-ms 40] [--image-ms 10] [--quick]

All machines are processes of this one: a head (`rayface head`) and `rayface join` once for each GPU. They are
up all the time; a client that may use the first N of the detectors measures N of them, in turns. The GPUs are
slow, so that they are the limit, and not the cores that all machines share here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from pathlib import Path

from tests.benchmarks.loads import Figures, Load
from tests.benchmarks.report import arguments, machine, median, parsed, table, verdict
from tests.benchmarks.sides.ours import ours
from tests.benchmarks.simulated_device import GAUGE_VARIABLE, OPENER, RUN_VARIABLE
from tests.hosts.machines import Machine, Machines, eventually, started_head

_SIZE = 160
_CALLERS, _PER_CALL = 8, 8


def main() -> None:
    """Print the table and the verdicts."""
    parser = arguments(__doc__, seconds=10.0)
    parser.add_argument("--hosts", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--run-ms", type=float, default=40.0, help="of each run of the simulated GPU")
    parser.add_argument("--image-ms", type=float, default=10.0, help="more of them for each image")
    given = parsed(parser)
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Machines()) as machines:
        found = _measured(given, Path(folder), machines)
    rows = []
    one = min(found)
    shares = {
        num: median(found[num], lambda f: f.per_s) / num / (median(found[one], lambda f: f.per_s) / one)
        for num in found
    }
    for num, figures in found.items():
        per_s = median(figures, lambda f: f.per_s)
        cores = median(figures, lambda f: f.processor_s["client"] / f.seconds)
        middle, late = median(figures, lambda f: f.wait_ms(0.5)), median(figures, lambda f: f.wait_ms(0.95))
        throughput = f"{per_s:,.0f}", f"{per_s / num:,.1f}", f"{shares[num]:.2f}"
        rows.append((num, *throughput, f"{middle:.0f}", f"{late:.0f}", f"{cores:.2f}"))
    heading = ("machines", "images/s", "a machine", "of one's", "p50 ms", "p95 ms", "cores of the client")
    print(table(heading, rows))
    print(
        f"\n{machine()}, which are all machines at once; {given.rounds} rounds of {given.seconds:g} s each."
    )
    print(f"GPU: {given.run_ms:g} ms a run and {given.image_ms:g} ms an image.\n")
    for num, share in shares.items():
        if num > one:
            verdict(f"throughput a machine with {num}, of one's", "≥ .90", f"{share:.2f}", share >= 0.9)


def _measured(given: argparse.Namespace, folder: Path, machines: Machines) -> dict[int, list[Figures]]:
    simulated = {
        "RAYFACE_DETECTOR__OPENER": OPENER,
        "RAYFACE_DETECTOR__PROVIDER": "directml",
        "RAYFACE_DETECTOR__INPUT_SIZE": str(_SIZE),
        # So slow a GPU needs longer for the measurement of its batch sizes.
        "RAYFACE_DETECTOR__WARM_UP_S": "10",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        RUN_VARIABLE: f"{given.run_ms},{given.image_ms}",
    }
    head, address = started_head(machines, **simulated)
    for number in range(max(given.hosts)):
        host = machines(**simulated, **{GAUGE_VARIABLE: str(folder / f"{number}.gauge")})
        host.start("join", "join", address, "--device", f"directml:{number}", "--wait")
    eventually(lambda: _num_ready(head, address) >= max(given.hosts), 300, lambda: head.said("head"))
    found: dict[int, list[Figures]] = {num: [] for num in given.hosts}
    with contextlib.ExitStack() as stack:
        sides = {}
        for num in given.hosts:
            variables = {
                **head.variables,
                **simulated,
                "RAYFACE_CLUSTER__ADDRESS": address,
                "RAYFACE_CLIENT__MAX_IMAGES_IN_FLIGHT": "2048",
            }
            sides[num] = stack.enter_context(ours(str(num), variables, f"detectors={num}"))
        for side in sides.values():
            side.ready()
        for _ in range(given.rounds):
            for num, side in sides.items():
                load = Load(_CALLERS * num, _PER_CALL, _SIZE, seconds=given.seconds)
                figures = side.measure(load)
                found[num].append(figures)
                if figures.failed:
                    print(f"<!-- {num} machines: {figures.failed} -->", flush=True)
    return found


def _num_ready(head: Machine, address: str) -> int:
    done = head.run("place", "--address", address, "--json", timeout_s=300)
    return sum(row["state"] == "ready" for row in json.loads(done.stdout or "[]"))


if __name__ == "__main__":
    main()
