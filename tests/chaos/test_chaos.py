"""The short form: two minutes of load with every fault at once; `python -m tests.chaos` is the long one."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from tests.chaos.__main__ import show
from tests.chaos.run import run
from tests.chaos.site import Site
from tests.hosts.lab import REQUIRED, can_make_networks

_SECONDS = 120.0


def test_every_photo_gets_its_one_honest_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    """I1, I2, I6: the detector killed every 10 s, its node every 60 s, the cable cut, calls lost by Ray."""
    has_cable = can_make_networks()
    assert has_cable or "network" not in REQUIRED
    with Site(has_cable=has_cable) as site:
        found = run(site, _SECONDS)
    with capsys.disabled():
        print()
        show(found, Console(width=110, highlight=False))
    assert found.problems == [], json.dumps(found.as_dict(), indent=2)
    # The run had as many faults as planned.
    assert found.num_faults["actor"] >= 7
    assert found.num_faults["node"] >= 1
    assert not has_cable or found.num_faults["link"] >= 3
    assert found.num_lives >= 6
    assert min(found.num_asked.values()) > 100
    assert max(found.num_lines.values()) <= 100
