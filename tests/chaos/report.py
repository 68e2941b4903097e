"""What a run under chaos came to: every photo accounted for, what fell back, and how long recoveries took."""

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
        at: when it ended, seconds since 1970; a killed process at once, a cut link when it healed.
    """

    kind: str
    at: float


@dataclass
class Report:
    """The figures of one run; `problems` says what must not have happened and did.

    Attributes:
        num_asked: photos, by priority.
        outcomes: by priority: how many of each status and reason.
        fallbacks: by priority: how many of each reason.
        recoveries_s: by kind of fault: until a detector answered again.
        amplification: photos on the device, for each that was asked.
        num_lines: that each process wrote.
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
        """JSON-ready, with the rates and the percentiles that people ask for."""
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
    """The value below which that share of them lies; the largest of few."""
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
        rows: what the callers wrote.
        faults: what was done, in order.
        notes: what the device wrote.
        seconds: that it lasted.
        num_lines: that each process wrote.
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
            what = "a failure shown as no faces" if not row["num_faces"] else "another's or a wrong answer"
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
    """From each fault to the first answer of a detector to a photo that was asked after it."""
    answered = sorted(
        (row["answered"], row["asked"]) for row in rows if row["status"] == "detected" and not row["fallback"]
    )
    found: dict[str, list[float]] = {}
    for fault in faults:
        after = [at for at, asked in answered if asked > fault.at]
        if after:
            found.setdefault(fault.kind, []).append(round(min(after) - fault.at, 2))
    return found
