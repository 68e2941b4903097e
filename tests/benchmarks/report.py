"""What the benchmarks have in common: their arguments, tables, rounds and verdicts."""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence

from actors.intake import num_cores
from tests.benchmarks.loads import Figures, Load
from tests.benchmarks.sides.process import Side

#: What a quick trial takes; its figures say nothing.
QUICK_S, QUICK_ROUNDS = 1.0, 1
#: Ray's agents go on starting for some seconds after the first answer.
SETTLE_S = 10.0


def arguments(about: str | None, seconds: float = 5.0, rounds: int = 3) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("seconds", nargs="?", type=float, default=seconds, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=rounds, help="how often the sides take turns")
    parser.add_argument("--quick", action="store_true", help="a short trial; its figures say nothing")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line; `--quick` shortens it."""
    given = parser.parse_args()
    if given.quick:
        given.seconds, given.rounds = QUICK_S, QUICK_ROUNDS
    return given


def ready(sides: Sequence[Side], *, quick: bool) -> None:
    """Start all sides, one after another, and wait until the agents of their Rays are quiet."""
    for side in sides:
        side.ready()
    if not quick:
        time.sleep(SETTLE_S)


def in_turns(sides: Sequence[Side], load: Load, rounds: int) -> dict[str, list[Figures]]:
    """Measure each side once in each round, so that what disturbs the machine disturbs all sides."""
    found: dict[str, list[Figures]] = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in sides[:: 1 if number % 2 == 0 else -1]:
            figures = side.measure(load)
            found[side.name].append(figures)
            for reason, num in figures.failed.items():
                print(f"<!-- {side.name}, {load}: {num} images failed: {reason} -->", flush=True)
    return found


def median(figures: Iterable[Figures], value: Callable[[Figures], float]) -> float:
    """The median of one value over the rounds."""
    return statistics.median(value(each) for each in figures)


def ratio(
    above: Sequence[Figures], below: Sequence[Figures], value: Callable[[Figures], float] = lambda f: f.per_s
) -> float:
    """The median over the rounds of the ratio within each round."""
    return statistics.median(
        value(one) / value(other) if value(other) else float("inf")
        for one, other in zip(above, below, strict=True)
    )


def table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def machine() -> str:
    """The machine, for the line under a table."""
    system, version = platform.system(), platform.python_version()
    return f"{num_cores()} cores ({platform.machine()}), {system}, Python {version}"


def verdict(what: str, wanted: str, got: str, is_met: bool) -> None:
    """Print one line that says whether a figure is what was wanted."""
    print(f"- {'met' if is_met else 'MISSED'}: {what}: wanted {wanted}, got {got}")
