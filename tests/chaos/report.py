"""The report of a run under chaos: the outcome of every photo, the fallbacks, and the times of recovery."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.hosts.recording import overlaps_of

Row = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """Something that was done to the cluster.

    Attributes:
        kind: actor, node or link.
        at: when the fault ended, in seconds since 1970: the kill of a process, the mending of a link.
    """

    kind: str
    at: float


@dataclass
class Report:
    """The figures of one run; `problems` lists events that must never happen and did.

    Attributes:
        num_asked: how many photos the callers asked for, by priority.
        outcomes: how many outcomes of each status and reason, by priority.
        fallbacks: how many fallbacks for each reason, by priority.
        recoveries_s: seconds until a detector answered again, by kind of fault.
        amplification: photos on the device, divided by photos that were asked.
        num_lines: how many lines each process wrote.
    """

    seconds: float
    num_asked: dict[str, int]
    outcomes: dict[str, dict[str, int]]
    fallbacks: dict[str, dict[str, int]]
    recoveries_s: dict[str, list[float]]
    num_faults: dict[str, int]
    amplification: float
    num_lives: int
    num_lines: dict[str, int]
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The report ready for JSON, with rates and percentiles."""
        return {
            **self.__dict__,
            "fallback_rate": {
                priority: sum(self.fallbacks.get(priority, {}).values()) / max(1, num)
                for priority, num in self.num_asked.items()
            },
            "failure_rate": {
                priority: sum(
                    count for key, count in self.outcomes.get(priority, {}).items() if key != "detected"
                )
                / max(1, num)
                for priority, num in self.num_asked.items()
            },
            "recovery_s": {
                kind: {"p50": statistics.median(times), "p95": percentile(times, 0.95), "num": len(times)}
                for kind, times in self.recoveries_s.items()
                if times
            },
        }


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies; with few values, the largest one."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def report(
    rows: Sequence[Row],
    faults: Sequence[Fault],
    notes: Sequence[Row],
    seconds: float,
    num_lines: dict[str, int],
) -> Report:
    """Judge a run.

    Args:
        rows: the rows that the callers wrote.
        faults: the faults, in order.
        notes: the device's notes.
        seconds: how long the run lasted.
        num_lines: how many lines each process wrote.
    """
    runs = [number for note in notes if note["event"] == "run" for number in note["numbers"]]
    by_cpu = [row for row in rows if row["fallback"]]
    priorities = sorted({row["priority"] for row in rows})
    made = Report(
        seconds=round(seconds, 1),
        num_asked={each: sum(row["priority"] == each for row in rows) for each in priorities},
        outcomes={
            each: dict(Counter(row["reason"] or row["status"] for row in rows if row["priority"] == each))
            for each in priorities
        },
        fallbacks={
            each: dict(Counter(row["fallback"] for row in by_cpu if row["priority"] == each))
            for each in priorities
        },
        recoveries_s=_recoveries(rows, faults),
        num_faults=dict(Counter(each.kind for each in faults)),
        amplification=round(len(runs) / max(1, len(rows)), 3),
        num_lives=len({note["pid"] for note in notes}),
        num_lines=num_lines,
    )
    made.problems = _problems(rows, notes)
    return made


def _problems(rows: Sequence[Row], notes: Sequence[Row]) -> list[str]:
    numbers = Counter(row["number"] for row in rows)
    found = [f"photo {number} has {num} outcomes" for number, num in numbers.items() if num > 1]
    for row in rows:
        if row["status"] == "detected" and not row["right"]:
            what = (
                "a failure shown as an answer without faces"
                if not row["num_faces"]
                else "a wrong answer, or that of another photo"
            )
            found.append(f"photo {row['number']}: {what} ({row['fallback'] or row['incarnation']})")
        elif row["status"] == "rejected":
            found.append(f"photo {row['number']} was refused: {row['detail']}")
        elif row["status"] == "failed" and not row["detail"]:
            found.append(f"photo {row['number']} failed without a reason")
    found += [
        f"two processes had the device open at once: {one} {other}" for one, other in overlaps_of(notes)
    ]
    return found


def _recoveries(rows: Sequence[Row], faults: Sequence[Fault]) -> dict[str, list[float]]:
    """Seconds from each fault to a detector's first answer to a photo that was asked after the fault."""
    answered = sorted(
        (row["answered"], row["asked"]) for row in rows if row["status"] == "detected" and not row["fallback"]
    )
    found: dict[str, list[float]] = {}
    for fault in faults:
        after = [at for at, asked in answered if asked > fault.at]
        if after:
            found.setdefault(fault.kind, []).append(round(min(after) - fault.at, 2))
    return found
