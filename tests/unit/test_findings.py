"""Verdicts, exit codes, and that each finding points to a section that exists."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from cluster.cli.doctor import EXITS
from cluster.node.findings import SECTIONS, Finding, Verdict, anchor, of_dict, ok, warn, worst, wrong

HERE = Path(__file__).parents[2]
ROOMS = ("host", "platform_hints", "doctor", "detectors", "machines")


def test_the_worst_verdict_decides_the_exit_code() -> None:
    """Never 2, which is wrong use."""
    good, odd, bad = ok("ray", "well"), warn("ray", "so so", "look"), wrong("ray", "no", "do")
    assert EXITS[worst([])] == EXITS[worst([good])] == 0
    assert EXITS[worst([odd, good])] == 1
    assert EXITS[worst([good, bad, odd])] == 3


def test_a_finding_survives_json_and_another_version() -> None:
    found = warn("disk", "full", "empty it").at("far")
    values = json.loads(json.dumps(found.as_dict()))
    assert values["verdict"] == "warn"
    assert values["link"] == "README.md#when-something-fails"
    assert of_dict({**values, "colour": "of a later version"}) == found
    assert Finding("unheard of", Verdict.OK, "").as_dict()["link"] == "README.md"


def test_every_section_is_a_heading_of_the_readme() -> None:
    lines = (HERE / "README.md").read_text(encoding="utf-8").splitlines()
    headings = {line.lstrip("# ") for line in lines if line.startswith("#")}
    assert set(SECTIONS.values()) <= headings
    assert anchor("Names, with published ports") == "names-with-published-ports"


@pytest.mark.parametrize("room", ROOMS)
def test_every_check_has_its_section(room: str) -> None:
    """As it is written: a name that the table lacks would be a finding without a link."""
    tree = ast.parse((HERE / "cluster" / "doctor" / f"{room}.py").read_text(encoding="utf-8"))
    made = [
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("ok", "warn", "wrong")
        and isinstance(node.args[0], ast.Constant)
    ]
    assert made
    assert set(made) <= set(SECTIONS)
