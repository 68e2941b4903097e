"""Processor time of all processes for a call, from prepared pixels to the answer, beside a bare Ray actor.

python -m tests.benchmarks.call_cost [SECONDS] [--rounds N] [--callers N] [--quick]

The processes are the client, the driver process, the detector, and Ray's own: raylet, gcs and agents. Their
processor time over a measurement is divided by the calls that were answered in it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from tests.benchmarks.loads import Figures, Load
from tests.benchmarks.report import arguments, in_turns, machine, median, parsed, ratio, ready, table, verdict
from tests.benchmarks.sides.bare_actor import bare_actor
from tests.benchmarks.sides.ours import ours, simulated

#: Images a call and side of the pixels.
CALLS = ((1, 160), (8, 160), (1, 640), (8, 640))
_PROCESSES = ("client", "driver process", "detector", "raylet", "gcs", "agents")


def main() -> None:
    """Print the table and the verdicts."""
    parser = arguments(__doc__)
    parser.add_argument("--callers", type=int, default=1, help="how many ask at once")
    given = parsed(parser)
    found: dict[tuple[int, int], tuple[list[Figures], list[Figures]]] = {}
    for size, group in groupby(CALLS, lambda call: call[1]):
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            with ours("ours", simulated(folder, size)) as own, bare_actor(folder) as bare:
                ready([own, bare], quick=given.quick)
                for per_call, _ in group:
                    load = Load(given.callers, per_call, size, seconds=given.seconds)
                    both = in_turns([own, bare], load, given.rounds)
                    found[per_call, size] = both["ours"], both["bare actor"]
    rows = []
    for (per_call, size), (mine, other) in found.items():
        megabytes = per_call * size * size * 3 / 1e6
        call = f"{per_call} of {size}² ({megabytes:.2f} MB)"
        rows.append((call, "ours", *_cells(mine), f"{ratio(mine, other, lambda f: f.processor_ms):.2f}"))
        rows.append(("", "bare actor", *_cells(other), ""))
    print(table(("call", "side", "all, ms", *_PROCESSES, "ours : bare"), rows))
    print(f"\n{machine()}; {given.callers} callers, {given.rounds} rounds of {given.seconds:g} s, medians.\n")
    _judge(found)


def _judge(found: dict[tuple[int, int], tuple[list[Figures], list[Figures]]]) -> None:
    got = ratio(*found[1, 160], lambda f: f.processor_ms)
    verdict("one small image, times the bare actor's", "≤ 2.00", f"{got:.2f}", got <= 2.0)
    for side, name in enumerate(("ours", "bare actor")):
        cost = {call: median(both[side], lambda f: f.processor_ms) for call, both in found.items()}
        further = (cost[8, 160] - cost[1, 160]) / 7
        # The two calls of eight differ in nothing but the size of their images.
        megabyte = (cost[8, 640] - cost[8, 160]) / (8 * 3 * (640**2 - 160**2) / 1e6)
        if name == "ours":
            verdict("each further small image", "≤ 0.50 ms", f"{further:.2f} ms", further <= 0.5)
            verdict("each megabyte", "≤ 1.00 ms", f"{megabyte:.2f} ms", megabyte <= 1.0)
        else:
            print(
                f"- beside it, {name}: {further:.2f} ms each further image, {megabyte:.2f} ms each megabyte"
            )


def _cells(figures: list[Figures]) -> list[str]:
    return [
        f"{median(figures, lambda f: f.processor_ms):.2f}",
        *(f"{median(figures, _cost_of(name)):.2f}" for name in _PROCESSES),
    ]


def _cost_of(name: str) -> Callable[[Figures], float]:
    return lambda figures: 1000 * _of(figures, name) / figures.num_calls


def _of(figures: Figures, name: str) -> float:
    """Processor seconds of one kind of process; what has no name of its own counts as an agent."""
    if name != "agents":
        return figures.processor_s.get(name, 0.0)
    return sum(seconds for other, seconds in figures.processor_s.items() if other not in _PROCESSES[:-1])


if __name__ == "__main__":
    main()
