"""One run under chaos: four callers, and faults on a timetable. It ends with a report."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.device import notes
from tests.chaos.report import Fault, Report, report
from tests.chaos.site import LOSES_CALLS, Site
from tests.hosts.machines import eventually

#: A caller that needs longer to end after its last answer hangs.
_END_WITHIN_S = 120.0


@dataclass(frozen=True)
class Timetable:
    """The seconds between two faults of each kind.

    Attributes:
        actor_s: seconds between two kills of the detector's process.
        node_s: seconds between two kills of its machine's raylet.
        link_s: seconds between two cuts of the cable, which last `cut_s`.
    """

    actor_s: float = 10.0
    node_s: float = 60.0
    link_s: float = 30.0
    cut_s: float = 5.0


def run(
    site: Site,
    seconds: float,
    tell: Callable[[float, str], None] = lambda at, what: None,
    timetable: Timetable = Timetable(),
) -> Report:
    """Run load and faults for a time, then wait without faults until every photo is answered.

    Args:
        site: the machines; they must be started.
        seconds: how long the load lasts.
        tell: called with a line about the progress or about a fault.
    """
    policy = {"RAYFACE_FALLBACK__POLICY": "after_s", "RAYFACE_FALLBACK__AFTER_S": "7", **LOSES_CALLS}
    files = [
        site.call("person1", "interactive", seconds, 1_000_000, **policy),
        site.call("person2", "interactive", seconds, 2_000_000, **policy),
        site.call("scan1", "bulk", seconds, 3_000_000, **policy),
        site.call("scan2", "bulk", seconds, 4_000_000, **policy),
    ]
    eventually(lambda: all(site.answers(file) for file in files), 120, site.said)
    begun = time.monotonic()
    faults = _faults(site, seconds, tell, timetable, begun)
    until = time.monotonic() + _END_WITHIN_S
    for file, process in site.callers.items():
        try:
            code = process.wait(max(1.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            status = site.head.run("status", "--address", site.address)
            raise AssertionError(
                f"{file.stem} did not end.\n{status.stdout}{status.stderr}\n{site.said()}"
            ) from None
        assert code == 0, f"{file.stem} ended with {code}.\n{site.said()}"
    rows = [row for file in files for row in site.answers(file)]
    made = report(rows, faults, notes(site.device), time.monotonic() - begun, site.num_lines())
    if site.num_asked() != len(rows):
        made.problems.insert(0, f"{site.num_asked()} photos were asked for, and {len(rows)} have an outcome")
    return made


def _faults(
    site: Site,
    seconds: float,
    tell: Callable[[float, str], None],
    timetable: Timetable,
    begun: float,
) -> list[Fault]:
    faults: list[Fault] = []
    due = {"actor": timetable.actor_s, "node": timetable.node_s, "link": 0.6 * timetable.link_s}
    heal_at: float | None = None
    while (at := time.monotonic() - begun) < seconds:
        if heal_at is not None and at >= heal_at:
            site.heal()
            heal_at = None
            faults.append(Fault("link", time.time()))
            tell(at, "the cable is back")
        # While there is none to be killed, the fault is due still.
        if at >= due["actor"] and site.kill_actor():
            due["actor"] = at + timetable.actor_s
            faults.append(Fault("actor", time.time()))
            tell(at, "the detector's process was killed")
        if at >= due["node"] and site.kill_node():
            due["node"] = at + timetable.node_s
            faults.append(Fault("node", time.time()))
            tell(at, "the machine's raylet was killed")
        if at >= due["link"] and site.has_cable:
            due["link"] += timetable.link_s
            site.cut()
            heal_at = at + timetable.cut_s
            tell(at, "the cable was pulled")
        tell(at, "")
        time.sleep(0.2)
    if heal_at is not None:
        site.heal()
    return faults
