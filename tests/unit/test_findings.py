"""Verdicts, exit codes, and that each finding points to a section that exists."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator

from cluster.cli.doctor import EXITS
from cluster.node.findings import of_dict, ok, warn, worst, wrong
from tests.documents import HERE, anchor, headings, section

PAGE = HERE / "docs" / "doctor.md"


def test_the_worst_verdict_decides_the_exit_code() -> None:
    """Never 2, which is wrong use."""
    good, odd, bad = ok("ray", "well"), warn("ray", "so so", "look"), wrong("ray", "no", "do")
    assert EXITS[worst([])] == EXITS[worst([good])] == 0
    assert EXITS[worst([odd, good])] == 1
    assert EXITS[worst([good, bad, odd])] == 3


def test_a_finding_survives_json_and_another_version() -> None:
    found = warn("token of the head", "refused", "save it").at("far")
    values = json.loads(json.dumps(found.as_dict()))
    assert values["verdict"] == "warn"
    assert values["link"] == "docs/doctor.md#token-of-the-head"
    assert of_dict({**values, "colour": "of a later version"}) == found


def test_every_check_has_its_heading_and_every_heading_its_check() -> None:
    """A name without a heading would be a finding whose link leads nowhere."""
    checks = set(_checks())
    assert len(checks) > 30
    assert set(headings(PAGE, level=3)) == checks
    for name in checks:
        assert section(PAGE, name).strip(), f"nothing stands under {name}"
        assert ok(name, "").link == f"docs/doctor.md#{anchor(name)}"


def _checks() -> Iterator[str]:
    """The names of all checks, as the source has them."""
    files = [*(HERE / "cluster" / "doctor").glob("*.py"), HERE / "cluster" / "node" / "checks.py"]
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("ok", "warn", "wrong", "Finding")
                and node.args
            ):
                name = node.args[0]
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    yield name.value
                else:
                    # The name is a variable: one of a file's own, or the key of a table of checks.
                    assert isinstance(name, ast.Name), f"{file}:{node.lineno}: no plain name"
