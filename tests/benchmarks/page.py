"""Runs benchmarks and writes what they print into docs/performance.md.

python -m tests.benchmarks.page [SECONDS] [--rounds N] [--only NAME ...] [--quick] [--yunet FILE]

Each benchmark has its place in the page, between `<!-- figures: NAME -->` and `<!-- end of figures -->`. Run
it on a machine that does nothing else. `--quick` shows what would be written, and writes nothing.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.report import arguments

HERE = Path(__file__).parents[2]
PAGE = HERE / "docs" / "performance.md"
#: In the order of the page.
NAMES = (
    "simulated_gpu",
    "call_cost",
    "copies",
    "ends",
    "photos_12mp",
    "peers_12mp",
    "cost_of_safety",
    "event_loop",
    "hosts",
    "reckoning",
)


def run(name: str, options: Sequence[str]) -> str:
    """The Markdown that a benchmark prints.

    Raises:
        subprocess.CalledProcessError: it failed; its errors stand on the terminal.
    """
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", *options]
    done = subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def put(page: str, name: str, figures: str) -> str:
    """The page with other figures in a benchmark's place.

    Raises:
        ValueError: the page has no such place.
    """
    place = re.compile(rf"(<!-- figures: {name} -->\n).*?(<!-- end of figures -->)", re.DOTALL)
    if not place.search(page):
        raise ValueError(f"{PAGE.name} has no place for the figures of {name}.")
    return place.sub(lambda found: f"{found[1]}\n{figures}\n\n{found[2]}", page)


def main() -> None:
    """Run them, one after another; the page is written after each."""
    parser = arguments(__doc__)
    parser.set_defaults(seconds=None, rounds=None)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--yunet", default="", help="a file of YuNet, which is measured beside CenterFace")
    given = parser.parse_args()
    options = ["--quick"] if given.quick else []
    options += [] if given.seconds is None else [str(given.seconds)]
    options += [] if given.rounds is None else ["--rounds", str(given.rounds)]
    for name in given.only:
        models = ["centerface", *([given.yunet] if given.yunet else [])]
        if name in ("photos_12mp", "ends"):
            figures = run(name, [*options, "--model", *models])
        elif name == "peers_12mp":
            figures = "\n\n".join(run(name, [*options, "--model", model]) for model in models)
        else:
            figures = run(name, options)
        print(f"{name}\n\n{figures}\n", flush=True)
        if not given.quick:
            PAGE.write_text(put(PAGE.read_text(encoding="utf-8"), name, figures), encoding="utf-8")


if __name__ == "__main__":
    main()
