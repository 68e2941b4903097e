"""The table of named faults: on a terminal, and as text for docs/resilience.md."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from tests.chaos.by_name import Finding

_COLUMNS = ("fault", "asked", "detected", "by the CPU", "failed", "lost, doubled, wrong", "back after")


def _cells(finding: Finding) -> tuple[str, ...]:
    failures = sorted(finding.failures.items(), key=lambda each: -each[1])
    back_s = finding.back_after_s
    return (
        finding.kind.words,
        f"{finding.num_asked:,}",
        f"{finding.num_detected:,}",
        f"{finding.num_by_cpu:,}",
        ", ".join(f"{num:,} {reason}" for reason, num in failures) or "0",
        str(len(finding.report.problems)),
        "not in its time" if back_s is None else f"{back_s:.1f} s",
    )


def for_terminal(findings: Sequence[Finding]) -> Table:
    """The table for a terminal."""
    table = Table(*_COLUMNS, box=None, header_style="bold")
    for finding in findings:
        table.add_row(*_cells(finding))
    return table


def as_text(findings: Sequence[Finding]) -> str:
    """The table in Markdown."""
    lines = [_COLUMNS, ("---",) * len(_COLUMNS), *map(_cells, findings)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
