"""Photos of 12 megapixels: ours beside other servers, each written as its own documentation shows.

python -m tests.benchmarks.peers_12mp [SECONDS] [--model NAME_OR_FILE] [--environments FOLDER] [--quick]

Each server has an environment of its own; pip makes it once, from the index that pip is set to use. All
servers get the same JPEGs over HTTP on the loopback address, by aiohttp, which costs less than httpx. Servers
with workers have one for each core.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from platformdirs import user_cache_path

from actors.intake import num_cores
from actors.models import ready_model
from actors.settings import DetectorSettings
from tests.benchmarks.large_photos import write_large_photos
from tests.benchmarks.loads import Figures, Load
from tests.benchmarks.peers.model import FAMILY_VARIABLE, GRAPH_VARIABLE
from tests.benchmarks.photos_12mp import CALLERS, NUM_PHOTOS, model_variables
from tests.benchmarks.report import arguments, in_turns, machine, median, parsed, ratio, ready, table, verdict
from tests.benchmarks.sides.ours import ours
from tests.benchmarks.sides.peer import PEERS
from tests.benchmarks.sides.process import Side

#: How many times the best peer's images a second are wanted, by model.
_WANTED = {"centerface": 2.0, "yunet": 2.7}


def main() -> None:
    """Print the table and the verdicts."""
    parser = arguments(__doc__, seconds=10.0)
    default = user_cache_path("rayface", appauthor=False) / "peers"
    parser.add_argument("--model", default="centerface", help="a name, or an .onnx file")
    parser.add_argument("--environments", type=Path, default=default, help="where the peers are installed")
    parser.add_argument("--only", nargs="+", default=[], help="modules of these peers alone")
    given = parsed(parser)
    named = model_variables(given.model)
    path = named.get("RAYFACE_DETECTOR__MODEL_PATH")
    settings = DetectorSettings(model_path=Path(path)) if path else DetectorSettings(model=given.model)
    model = ready_model(settings)
    graph = {GRAPH_VARIABLE: str(model.prepared), FAMILY_VARIABLE: model.family.name}
    chosen = [each for each in PEERS if not given.only or each.module in given.only]
    pythons = [each.installed(given.environments) for each in chosen]
    found: dict[int, dict[str, list[Figures]]] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        write_large_photos(Path(folder), NUM_PHOTOS)
        sides: list[Side] = [stack.enter_context(ours("ours", named))]
        for peer, python in zip(chosen, pythons, strict=True):
            sides.append(stack.enter_context(peer.side(python, num_cores(), graph)))
        ready(sides, quick=given.quick)
        for callers in CALLERS:
            load = Load(callers, 1, folder=folder, seconds=given.seconds)
            found[callers] = in_turns(sides, load, given.rounds)
    heading = ("callers", "side", "photos/s", "p50 ms", "p95 ms", "ours : it, photos/s")
    print(table(heading, [row for callers in CALLERS for row in _rows(callers, found[callers])]))
    print(f"\n{machine()}; {model.name}; {given.rounds} rounds of {given.seconds:g} s each, medians.\n")
    _judge(model.family.name, found)


def _rows(callers: int, found: dict[str, list[Figures]]) -> list[tuple[object, ...]]:
    return [
        (
            callers,
            side,
            f"{median(figures, lambda f: f.per_s):.1f}",
            f"{median(figures, lambda f: f.wait_ms(0.5)):.0f}",
            f"{median(figures, lambda f: f.wait_ms(0.95)):.0f}",
            "" if side == "ours" else f"{ratio(found['ours'], figures):.2f}",
        )
        for side, figures in found.items()
    ]


def _judge(family: str, found: dict[int, dict[str, list[Figures]]]) -> None:
    wanted = _WANTED.get(family, 2.0)
    for callers in CALLERS[1:]:
        mine, others = found[callers]["ours"], {k: v for k, v in found[callers].items() if k != "ours"}
        best = max(others, key=lambda name: median(others[name], lambda f: f.per_s))
        got = ratio(mine, others[best])
        what = f"times the best peer ({best}) at {callers} callers, {family}"
        verdict(what, f"≥ {wanted:.2f}", f"{got:.2f}", got >= wanted)
    waits = {name: median(each, lambda f: f.wait_ms(0.95)) for name, each in found[1].items()}
    least = min(wait for name, wait in waits.items() if name != "ours")
    verdict("p95 at one caller", f"below {least:.0f} ms", f"{waits['ours']:.0f} ms", waits["ours"] < least)


if __name__ == "__main__":
    main()
