"""`python -m tests.chaos`: the long form of the chaos suite, for anybody with a Linux machine.

    python -m tests.chaos [--minutes 20] [--json FILE]

It kills real processes of a real Ray with a simulated device. As root with iproute2 it also pulls a cable. It
ends with exit code 1 if a photo was lost, answered twice or answered wrongly, or if two processes had the
device open at once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.chaos.report import Report
from tests.chaos.run import run
from tests.chaos.site import Site
from tests.hosts.lab import can_make_networks

_WORDS = {
    "actor": "detector's process killed",
    "node": "its machine's raylet killed",
    "link": "cable cut 5 s",
}


@click.command()
@click.option("--minutes", type=click.FloatRange(0.5), default=20.0, show_default=True, help="Of load.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="The report, as JSON.")
def main(minutes: float, file: Path | None) -> None:
    """Run load and faults for a while, and print the report."""
    console = Console(highlight=False)
    has_cable = can_make_networks()
    if not has_cable:
        console.print("No network namespaces here (they need root on Linux): no cable is pulled.")
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with (
        Site(has_cable=has_cable) as site,
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("starting", total=minutes * 60)

        def tell(at: float, what: str) -> None:
            bar.update(task, completed=at, description=what or None)

        found = run(site, minutes * 60, tell)
    show(found, console)
    if file is not None:
        file.write_text(json.dumps(found.as_dict(), indent=2))
    sys.exit(1 if found.problems else 0)


def show(found: Report, console: Console) -> None:
    """The report as tables."""
    known = found.as_dict()
    table = Table("photos", "asked", "detected", "by CPU", "failed", "reasons", box=None, header_style="bold")
    for priority, num in found.num_asked.items():
        outcomes = found.outcomes[priority]
        failed = {key: count for key, count in outcomes.items() if key != "detected"}
        fallbacks = found.fallbacks[priority]
        reasons = [f"{count} {key}" for key, count in [*failed.items(), *fallbacks.items()]]
        table.add_row(
            priority,
            str(num),
            str(outcomes.get("detected", 0)),
            f"{known['fallback_rate'][priority]:.2%}",
            f"{known['failure_rate'][priority]:.2%}",
            ", ".join(reasons) or "-",
        )
    console.print(table)
    table = Table("fault", "times", "recovery p50", "p95", box=None, header_style="bold")
    for kind, times in known["recovery_s"].items():
        table.add_row(
            _WORDS[kind], str(found.num_faults[kind]), f"{times['p50']:.1f} s", f"{times['p95']:.1f} s"
        )
    console.print(table)
    console.print(
        f"{found.seconds:.0f} s, {found.num_lives} lives of the device, "
        f"{found.amplification} runs for each photo; "
        f"lines written: {', '.join(f'{name} {num}' for name, num in found.num_lines.items())}"
    )
    for problem in found.problems[:20]:
        console.print(f"PROBLEM: {problem}", style="red", markup=False)
    console.print(
        "No photo was lost, answered twice or answered wrongly." if not found.problems else "", style="green"
    )


if __name__ == "__main__":
    main()
