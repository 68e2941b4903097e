"""What each part of our safety costs: the same loads with the part on and off, in turns.

python -m tests.benchmarks.cost_of_safety [SECONDS] [--rounds N] [--only PART] [--quick]

The parts: the token, TLS (with throw-away certificates), Ray's metrics, tracing into a folder, and the driver
process (off: this process is Ray's driver itself, which a long absence of the cluster would end). Metrics are
turned off by Ray's own switch; what we do to hand them to Ray is still done.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.loads import Figures, Load
from tests.benchmarks.report import arguments, in_turns, machine, median, parsed, ratio, ready, table
from tests.benchmarks.sides.ours import ours, simulated
from tests.tls import tls_variables

#: Callers, images a call, and side of the pixels.
LOADS = ((1, 1, 160), (8, 8, 160))
_SIZE = 160


@dataclass(frozen=True)
class Part:
    """A part of our safety.

    Attributes:
        name: in the table.
        on: variables with the part.
        off: variables without it.
        off_arguments: of the side without it.
    """

    name: str
    on: Mapping[str, str] = field(default_factory=dict)
    off: Mapping[str, str] = field(default_factory=dict)
    off_arguments: Sequence[str] = ()


def parts(folder: Path) -> list[Part]:
    """All parts; the folder takes certificates and spans."""
    return [
        Part("token", {"RAY_AUTH_MODE": "token"}, {"RAY_AUTH_MODE": "disabled"}),
        Part("TLS", tls_variables(folder), {"RAY_USE_TLS": "0"}),
        Part("metrics", {}, {"RAY_enable_metrics_collection": "0"}),
        Part("tracing", {"RAYFACE_TRACING__FOLDER": str(folder / "spans")}, {}),
        Part("driver process", {}, {}, ("same-process",)),
    ]


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--only", default="", help="measure this part alone")
    given = parsed(parser)
    rows = []
    with tempfile.TemporaryDirectory() as made:
        for number, part in enumerate(parts(Path(made))):
            if given.only and part.name != given.only:
                continue
            folder = Path(made) / str(number)
            for name in ("on", "off"):
                (folder / name).mkdir(parents=True)
            on = simulated(folder / "on", _SIZE, **part.on)
            off = simulated(folder / "off", _SIZE, **part.off)
            with ours("on", on) as one, ours("off", off, *part.off_arguments) as other:
                ready([one, other], quick=given.quick)
                for callers, per_call, size in LOADS:
                    load = Load(callers, per_call, size, seconds=given.seconds)
                    both = in_turns([one, other], load, given.rounds)
                    rows.append((part.name, load, *_cells(both["on"], both["off"])))
    print(table(("part", "load", "images/s on : off", "p50 on : off", "processor time on : off"), rows))
    print(f"\n{machine()}; {given.rounds} rounds of {given.seconds:g} s each, medians of the ratios.")


def _cells(on: list[Figures], off: list[Figures]) -> list[str]:
    one, other = (median(each, lambda f: f.processor_ms) for each in (on, off))
    return [
        f"{ratio(on, off):.2f}",
        f"{ratio(on, off, lambda f: f.wait_ms(0.5)):.2f}",
        f"{ratio(on, off, lambda f: f.processor_ms):.2f} ({one:.1f} : {other:.1f} ms)",
    ]


if __name__ == "__main__":
    main()
