"""`python -m tests.chaos`: the long form of the chaos suite, for anybody with a Linux machine.

    python -m tests.chaos [--minutes 20] [--json FILE]
    python -m tests.chaos --fault NAME --minutes 1
    python -m tests.chaos --fault all --minutes 1

It kills real processes of a real Ray with a simulated device. As root with iproute2 it also pulls a cable.
With `--fault` it plants one kind of fault alone, for so many minutes each, and prints a table. It ends with
exit code 1 if a photo was lost, answered twice, answered wrongly or shown as "no faces", or if two processes
had the device open at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.chaos.by_name import run_all
from tests.chaos.faults import FAULTS
from tests.chaos.faults.kind import FaultKind
from tests.chaos.report import Report
from tests.chaos.run import run
from tests.chaos.site import Site
from tests.chaos.table import as_text, for_terminal
from tests.hosts.lab import can_make_networks

_WORDS = {
    "actor": "detector's process killed",
    "node": "its machine's raylet killed",
    "link": "cable cut 5 s",
}


@click.command()
@click.option("--minutes", type=click.FloatRange(0.5), default=20.0, show_default=True, help="Of load.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="The report, as JSON.")
@click.option(
    "--fault",
    "names",
    multiple=True,
    type=click.Choice(["all", *FAULTS]),
    help="Plant this fault alone, for so many minutes; once for each fault, or 'all'.",
)
def main(minutes: float, file: Path | None, names: tuple[str, ...]) -> None:
    """Run load and faults for a while, and print the report."""
    console = Console(highlight=False)
    has_cable = can_make_networks()
    if names:
        if not has_cable:
            raise click.ClickException("Named faults need network namespaces: root on Linux, and iproute2.")
        kinds = list(FAULTS.values()) if "all" in names else [FAULTS[name] for name in names]
        sys.exit(_by_name(kinds, minutes * 60, file, console))
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


def _by_name(kinds: Sequence[FaultKind], seconds: float, file: Path | None, console: Console) -> int:
    findings = []
    for finding in run_all(kinds, seconds, lambda what: console.print(what, markup=False)):
        findings.append(finding)
        console.print(for_terminal([finding]))
        for problem in finding.report.problems[:20]:
            console.print(f"PROBLEM: {problem}", style="red", markup=False)
    console.print(for_terminal(findings))
    console.print("\nThe same for docs/resilience.md:\n")
    console.print(as_text(findings), markup=False, soft_wrap=True)
    if file is not None:
        file.write_text(json.dumps({each.kind.name: each.report.as_dict() for each in findings}, indent=2))
    return 1 if any(each.report.problems for each in findings) else 0


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
