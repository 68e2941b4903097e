"""Photos of 12 megapixels from 1, 8 and 32 callers, beside a bare loop with our own `prepare` and model.

python -m tests.benchmarks.photos_12mp [SECONDS] [--model NAME_OR_FILE ...] [--rounds N] [--quick]

Each call has one encoded photo. The bare loop has one thread for each core, no Ray and no wire.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.benchmarks.large_photos import write_large_photos
from tests.benchmarks.loads import Load
from tests.benchmarks.report import arguments, in_turns, machine, median, parsed, ratio, ready, table, verdict
from tests.benchmarks.sides.bare_loop import bare_loop
from tests.benchmarks.sides.ours import ours

CALLERS = (1, 8, 32)
NUM_PHOTOS = 24


def model_variables(model: str) -> dict[str, str]:
    """The variables that name a model of the catalogue, or a file."""
    if model.endswith(".onnx"):
        return {"RAYFACE_DETECTOR__MODEL_PATH": str(Path(model).absolute())}
    return {"RAYFACE_DETECTOR__MODEL": model}


def main() -> None:
    """Print the table and the verdicts."""
    parser = arguments(__doc__, seconds=10.0)
    parser.add_argument("--model", nargs="+", default=["centerface"], help="names, or .onnx files")
    given = parsed(parser)
    rows, verdicts = [], []
    with tempfile.TemporaryDirectory() as folder:
        write_large_photos(Path(folder), NUM_PHOTOS)
        for model in given.model:
            variables, name = model_variables(model), Path(model).stem
            with ours("ours", variables) as own, bare_loop(variables) as bare:
                ready([own, bare], quick=given.quick)
                for callers in CALLERS:
                    load = Load(callers, 1, folder=folder, seconds=given.seconds)
                    found = in_turns([own, bare], load, given.rounds)
                    mine, other = found["ours"], found["bare loop"]
                    got = ratio(mine, other)
                    for side, figures in found.items():
                        rows.append(
                            (
                                name,
                                callers,
                                side,
                                f"{median(figures, lambda f: f.per_s):.1f}",
                                f"{median(figures, lambda f: f.wait_ms(0.5)):.0f}",
                                f"{median(figures, lambda f: f.wait_ms(0.95)):.0f}",
                                f"{median(figures, lambda f: f.processor_ms):.0f}",
                                f"{got:.2f}" if side == "ours" else "",
                            )
                        )
                    if callers > 1:
                        verdicts.append((f"{name}, {callers} callers", "≥ .95", f"{got:.2f}", got >= 0.95))
    heading = (
        "model",
        "callers",
        "side",
        "photos/s",
        "p50 ms",
        "p95 ms",
        "processor ms",
        "ours : bare",
    )
    print(table(heading, rows))
    print(f"\n{machine()}; {given.rounds} rounds of {given.seconds:g} s each, medians.\n")
    for each in verdicts:
        verdict(*each)


if __name__ == "__main__":
    main()
