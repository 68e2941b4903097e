"""The short form of the named faults: those that cost most; `python -m tests.chaos --fault` has them all."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from rich.console import Console

from tests.chaos.by_name import Finding, run_one
from tests.chaos.faults import FAULTS
from tests.chaos.site import Needs, Site
from tests.chaos.table import for_terminal
from tests.hosts.lab import need

_FIRST_NUMBERS = count(10_000_000, 3_000_000)
#: How long the load goes on after a fault, in seconds; a detector that is not back by then is not back. After
#: a change of address, Ray is started again.
_AFTER_S = {"stop-detector": 20.0, "stop-store": 20.0, "flush": 25.0, "address": 45.0}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A head, a machine with the simulated device, and a cable that can do all faults."""
    need("network", "ip", "nsenter")
    with Site(has_cable=True, needs=Needs(wire=True, finds_address=True)) as made:
        yield made


@pytest.mark.parametrize("name", list(_AFTER_S))
def test_every_photo_gets_its_one_honest_outcome(
    site: Site, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """I1, I2, I6: no photo is lost, doubled, wrong or shown as "no faces", and the GPU comes back."""
    kind = FAULTS[name]
    found = Finding(kind, run_one(site, kind, 0.0, next(_FIRST_NUMBERS), after_s=_AFTER_S[name]))
    with capsys.disabled():
        print()
        Console(width=140, highlight=False).print(for_terminal([found]))
    assert found.report.problems == [], found.report.as_dict()
    assert found.num_asked == found.num_detected + sum(found.failures.values())
    # Each photo that is not searched has a reason of its own; a fault of the code would be "internal".
    assert set(found.failures) <= {"deadline", "detector_lost", "not_ready", "no_cluster", "busy"}
    assert found.num_detected > 0.5 * found.num_asked
    assert found.back_after_s is not None, "no detector answered again while the load lasted"
