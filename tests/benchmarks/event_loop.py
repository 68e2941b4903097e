"""The largest stall of each event loop at full load: of the client, the driver process and the detector.

python -m tests.benchmarks.event_loop [SECONDS] [--rounds N] [--quick]

A heartbeat is due every 2 ms inside each loop. The time by which it is late is a stall. Where all cores are
busy, the system's scheduling is a part of each stall; the bare actor beside it shows how large that part is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.heartbeat import STALLS_VARIABLE
from tests.benchmarks.loads import Figures, Load
from tests.benchmarks.report import arguments, in_turns, machine, median, parsed, ready, table, verdict
from tests.benchmarks.sides.bare_actor import bare_actor
from tests.benchmarks.sides.ours import ours, simulated

#: Callers, images a call, and side of the pixels.
LOADS = ((8, 8, 160), (8, 8, 640))


def main() -> None:
    """Print the table and the verdict."""
    given = parsed(arguments(__doc__))
    rows, largest = [], dict[str, float]()
    for callers, per_call, size in LOADS:
        load = Load(callers, per_call, size, seconds=given.seconds)
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            stalls = {name: folder / name for name in ("ours", "bare")}
            for each in stalls.values():
                each.mkdir()
            own = simulated(folder, size, **{STALLS_VARIABLE: str(stalls["ours"])})
            with ours("ours", own) as mine, bare_actor(folder, stalls["bare"]) as bare:
                ready([mine, bare], quick=given.quick)
                found = in_turns([mine, bare], load, given.rounds)
        for side, figures in found.items():
            for loop in figures[0].stalls:
                values = {key: median(figures, _value(loop, key)) for key in figures[0].stalls[loop]}
                rows.append((load, side, loop, *(f"{values[key]:.1f}" for key in ("largest_ms", "p999_ms"))))
                rows[-1] += (f"{values['num_above_10_ms']:.0f} of {values['num_beats']:.0f}",)
                if side == "ours":
                    largest[loop] = max(largest.get(loop, 0.0), values["largest_ms"])
    print(table(("load", "side", "loop", "largest, ms", "99.9 %, ms", "above 10 ms"), rows))
    print(f"\n{machine()}; {given.rounds} rounds of {given.seconds:g} s each, medians.\n")
    for loop, stall in largest.items():
        verdict(f"largest stall of the {loop}'s loop", "< 10 ms", f"{stall:.1f} ms", stall < 10)


def _value(loop: str, key: str) -> Callable[[Figures], float]:
    return lambda figures: figures.stalls.get(loop, {}).get(key, 0.0)


if __name__ == "__main__":
    main()
