"""A simulated GPU (a run sleeps 2.0 ms + 0.5 ms an image) behind us and behind a bare Ray actor, in turns.

python -m tests.benchmarks.simulated_gpu [SECONDS] [--rounds N] [--quick]

The pixels are made up and need no preparing. The detector's tensor has the pixels' size, so both sides send
and assemble the same bytes; `--input-size 640` gives ours the tensor of 640 x 640 for small pixels too.
"""

from __future__ import annotations

import tempfile
from itertools import groupby
from pathlib import Path

from tests.benchmarks.loads import Figures, Load
from tests.benchmarks.report import arguments, in_turns, machine, median, parsed, ratio, ready, table, verdict
from tests.benchmarks.sides.bare_actor import bare_actor
from tests.benchmarks.sides.ours import ours, simulated

#: Callers, images a call, and side of the pixels.
LOADS = (
    (1, 1, 160),
    (8, 1, 160),
    (8, 8, 160),
    (1, 1, 640),
    (8, 1, 640),
    (8, 8, 640),
    (32, 8, 640),
)
_HEADING = (
    "load",
    "side",
    "images/s",
    "busy",
    "fill",
    "mean batch",
    "p50 ms",
    "p95 ms",
    "ours : bare, images/s",
    "ours : bare, p50",
)


def main() -> None:
    """Print the table and the verdicts."""
    parser = arguments(__doc__)
    parser.add_argument("--input-size", type=int, default=0, help="of our detector; 0 takes the pixels' size")
    given = parsed(parser)
    found: dict[tuple[int, int, int], tuple[list[Figures], list[Figures]]] = {}
    for size, group in groupby(LOADS, lambda load: load[2]):
        with tempfile.TemporaryDirectory() as made:
            folder, input_size = Path(made), given.input_size or size
            with ours("ours", simulated(folder, input_size)) as own, bare_actor(folder) as bare:
                ready([own, bare], quick=given.quick)
                for callers, per_call, _ in group:
                    load = Load(callers, per_call, size, seconds=given.seconds)
                    both = in_turns([own, bare], load, given.rounds)
                    found[callers, per_call, size] = both["ours"], both["bare actor"]
    rows = []
    for (callers, per_call, size), (mine, other) in found.items():
        load = Load(callers, per_call, size)
        compared = f"{ratio(mine, other):.2f}", f"{ratio(mine, other, lambda f: f.wait_ms(0.5)):.2f}"
        rows.append((load, "ours", *_cells(mine), *compared))
        rows.append(("", "bare actor", *_cells(other), "", ""))
    print(table(_HEADING, rows))
    print(f"\n{machine()}; {given.rounds} rounds of {given.seconds:g} s each, medians.\n")
    _judge(found)


def _judge(found: dict[tuple[int, int, int], tuple[list[Figures], list[Figures]]]) -> None:
    small, large = found[8, 8, 160], found[8, 8, 640]
    busy = median(small[0], lambda f: f.busy)
    verdict("images/s at 160², 8 callers, 8 a call", "≥ .95", f"{ratio(*small):.2f}", ratio(*small) >= 0.95)
    verdict("busy at 160², 8 callers, 8 a call", "≥ .90", f"{busy:.2f}", busy >= 0.9)
    for callers in (8, 32):
        both = found[callers, 8, 640]
        got = ratio(*both)
        verdict(f"images/s at 640², {callers} callers, 8 a call", "≥ 1.30", f"{got:.2f}", got >= 1.3)
    fill = min(median(each[0], lambda f: f.fill) for each in (small, large))
    verdict("fill, 8 callers, 8 a call", "≥ .90", f"{fill:.2f}", fill >= 0.9)
    for size in (160, 640):
        got = ratio(*found[1, 1, size], lambda f: f.wait_ms(0.5))
        verdict(f"one caller's p50 at {size}²", "≤ 1.60", f"{got:.2f}", got <= 1.6)


def _cells(figures: list[Figures]) -> list[str]:
    return [
        f"{median(figures, lambda f: f.per_s):,.0f}",
        f"{median(figures, lambda f: f.busy):.2f}",
        f"{median(figures, lambda f: f.fill):.2f}",
        f"{median(figures, lambda f: f.batch):.1f}",
        f"{median(figures, lambda f: f.wait_ms(0.5)):.1f}",
        f"{median(figures, lambda f: f.wait_ms(0.95)):.1f}",
    ]


if __name__ == "__main__":
    main()
