"""Runs under one named fault each: a person and a scan ask while it is planted, and after it was mended."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from tests.chaos.device import notes
from tests.chaos.faults.kind import FaultKind, Load
from tests.chaos.report import Fault, Report, report
from tests.chaos.site import Site
from tests.hosts.machines import eventually

#: Load before the first fault, so that the figures show an undisturbed cluster too.
_BEFORE_S = 5.0
#: Between the mending of a fault and the next one, so that the return is seen.
_AFTER_S = 30.0
#: A caller that needs longer to end after its last photo hangs: a scan's deadline, and its pauses.
_END_WITHIN_S = 150.0
#: More photos than a fault's callers ask for.
_NUMBERS_EACH = 1_000_000
_POLICY = {"RAYFACE_FALLBACK__POLICY": "after_s", "RAYFACE_FALLBACK__AFTER_S": "7"}


@dataclass(frozen=True)
class Finding:
    """What one fault did to the photos.

    Attributes:
        kind: the fault.
        report: the figures of its run.
    """

    kind: FaultKind
    report: Report

    @property
    def num_asked(self) -> int:
        """Photos that were asked for."""
        return sum(self.report.num_asked.values())

    @property
    def num_detected(self) -> int:
        """Photos that were searched, by a detector or by the CPU."""
        return sum(counts.get("detected", 0) for counts in self.report.outcomes.values())

    @property
    def num_by_cpu(self) -> int:
        """Photos that the backend's own CPU searched."""
        return sum(sum(counts.values()) for counts in self.report.fallbacks.values())

    @property
    def failures(self) -> dict[str, int]:
        """Photos that were not searched, by reason."""
        found: dict[str, int] = {}
        for counts in self.report.outcomes.values():
            for reason, num in counts.items():
                if reason != "detected":
                    found[reason] = found.get(reason, 0) + num
        return found

    @property
    def back_after_s(self) -> float | None:
        """The longest time in seconds from a mending until a detector answers a later photo; None: never."""
        times = self.report.recoveries_s.get(self.kind.name, [])
        is_always_back = len(times) == self.report.num_faults.get(self.kind.name, 0)
        return max(times) if times and is_always_back else None


def run_all(
    kinds: Sequence[FaultKind], seconds: float, tell: Callable[[str], None] = lambda what: None
) -> Iterator[Finding]:
    """Run each fault for a time. Faults with equal needs share their machines.

    Args:
        kinds: the faults.
        seconds: how long the load of each fault lasts; at least one fault is planted.
        tell: called with a line about the progress.
    """
    number = 1
    for needs, group in groupby(kinds, key=lambda kind: kind.needs):
        tell("starting a head and a machine")
        with Site(has_cable=True, needs=needs) as site:
            for kind in group:
                tell(f"{kind.name}: {kind.words}")
                yield Finding(kind, run_one(site, kind, seconds, 3 * _NUMBERS_EACH * number))
                number += 1


def run_one(site: Site, kind: FaultKind, seconds: float, first: int, after_s: float = _AFTER_S) -> Report:
    """Run one fault on machines that are up, and judge every photo.

    Args:
        site: the machines, with what the fault needs.
        kind: the fault.
        seconds: how long the load lasts; longer if the fault needs longer.
        after_s: how long the load goes on after each fault, without one.
        first: the number of the first photo; the 3,000,000 numbers from it are the run's own.
    """
    once_s = kind.lasts_s + after_s
    seconds = max(seconds, _BEFORE_S + once_s)
    load = Load(
        site,
        [
            site.call(f"{kind.name}-person", "interactive", seconds, first, **_POLICY),
            site.call(f"{kind.name}-scan", "bulk", seconds, first + _NUMBERS_EACH, **_POLICY),
        ],
        seconds,
        first + 2 * _NUMBERS_EACH,
    )
    eventually(lambda: all(site.answers(file) for file in load.files), 180, site.said)
    begun, begun_on_device = time.monotonic(), time.clock_gettime(time.CLOCK_MONOTONIC)
    faults: list[Fault] = []
    time.sleep(_BEFORE_S)
    while not faults or time.monotonic() - begun + once_s <= seconds:
        with kind.plant(load):
            time.sleep(kind.lasts_s)
        faults.append(Fault(kind.name, time.time()))
        time.sleep(after_s)
    lost = _ended(site, load.files)
    rows = [row for file in load.files for row in site.answers(file)]
    on_device = [note for note in notes(site.device) if note["at"] >= begun_on_device]
    made = report(rows, faults, on_device, time.monotonic() - begun, site.num_lines())
    made.problems = [*lost, *load.problems, *made.problems]
    return made


def _ended(site: Site, files: Sequence[Path]) -> list[str]:
    """Wait for the callers' ends; returns a sentence for each whose photos have no outcome."""
    until = time.monotonic() + _END_WITHIN_S
    lost = []
    for file in files:
        process = site.callers[file]
        try:
            code = process.wait(max(1.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            lost.append(f"{file.stem} did not end: photos of it were lost. {_last_line(file)}")
            continue
        num_rows = len(site.answers(file))
        if code:
            lost.append(f"{file.stem} ended with {code}: photos of it were lost. {_last_line(file)}")
        elif (num_asked := site.num_asked([file])) != num_rows:
            lost.append(f"{file.stem} asked for {num_asked} photos, and {num_rows} have an outcome")
    return lost


def _last_line(file: Path) -> str:
    lines = file.with_suffix(".log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "It wrote nothing."
