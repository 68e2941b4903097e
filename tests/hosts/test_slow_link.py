"""A machine joins over a cable of 100 Mbit/s and 20 ms: photos travel as pixels, and as JPEGs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.hosts.lab import need
from tests.hosts.link_lab import LinkLab, link_lab
from tests.hosts.machines import Machine, tell

_MBIT_S, _DELAY_MS = 100, 20
_NUM_IMAGES = 128


@pytest.fixture(scope="module")
def lab(make_machine: Callable[..., Machine], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LinkLab]:
    need("network", "ip", "nsenter", "unshare")
    with link_lab(make_machine, tmp_path_factory.mktemp("link"), _MBIT_S, _DELAY_MS) as made:
        yield made


def test_photos_travel_as_the_setting_says(lab: LinkLab, capsys: pytest.CaptureFixture[str]) -> None:
    """Every image is searched, whichever way it travelled, and `auto` finds out that the link is slow."""
    found = {wire: lab.images_per_s(wire, _NUM_IMAGES) for wire in ("pixels", "jpeg", "auto")}
    shown = ", ".join(f"{wire} {each['images_per_s']:.1f}" for wire, each in found.items())
    tell(capsys, f"images a second over {_MBIT_S} Mbit/s and {_DELAY_MS} ms: {shown}; {found}")
    assert {wire: each["wire"] for wire, each in found.items()} == {
        "pixels": "pixels",
        "jpeg": "jpeg",
        "auto": "jpeg",
    }
    assert len({each["num_faces"] for each in found.values()}) == 1, "the wire changed what was found"
