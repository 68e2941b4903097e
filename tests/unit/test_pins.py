"""`constraints.txt` names every package, and whoever installs from it looks for nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["start.py", "Dockerfile"])
def test_an_install_of_the_pins_looks_for_no_dependencies(name: str) -> None:
    """pip takes the newest release of what is wanted with an extra, and then misses its hash."""
    text = (ROOT / name).read_text(encoding="utf-8")
    installs = [line for line in text.splitlines() if "--require-hashes" in line]
    assert installs
    assert all("--no-deps" in line for line in installs)


def test_each_pin_has_a_version_and_a_hash_and_no_address() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = [block for block in text.replace("\\\n", " ").splitlines() if block.strip()]
    assert pins
    assert all("==" in pin and "--hash=sha256:" in pin for pin in pins)
    assert "://" not in text
