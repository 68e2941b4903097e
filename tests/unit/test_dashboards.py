"""Dashboard and alert rules speak of metrics that there are, with labels that they have."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cluster.telemetry.metrics import ALL_METRICS
from tests.dashboards import RULES, board, queries, rules

#: Labels that Ray and Prometheus put on everything.
_EVERYWHERE = {"WorkerId", "le", "instance", "NodeAddress", "SessionName"}


@pytest.mark.parametrize("expression", [*(query for _, query in queries()), *rules()])
def test_every_name_and_label_exists(expression: str) -> None:
    known = {each.name: each for each in ALL_METRICS}
    names = re.findall(r"\bray_(rayface_[a-z_]+)", expression)
    assert names
    labels = set()
    for name in names:
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        metric = known.get(name) or known.get(base)
        assert metric is not None, name
        assert (metric.kind == "histogram") == (name != metric.name), f"{name} is a {metric.kind}"
        labels |= set(metric.tags)
    used = {word for group in re.findall(r"(?:by|on) \(([^)]*)\)", expression) for word in group.split(", ")}
    used |= set(re.findall(r"[{,]\s*([a-z_]+)!?=", expression))
    assert used <= labels | _EVERYWHERE, expression


def test_legends_use_labels_that_are_left() -> None:
    for panel in board()["panels"]:
        for target in panel.get("targets", ()):
            kept = re.match(r"[^(]*by \(([^)]*)\)|histogram_quantile.*?by \(([^)]*)\)", target["expr"])
            left = set(", ".join(filter(None, kept.groups())).split(", ")) if kept else set()
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= left, (panel["title"], target)


def test_the_five_old_complaints_are_the_five_rows() -> None:
    rows = [panel["title"].split(":")[0] for panel in board()["panels"] if panel["type"] == "row"]
    assert rows == ["Owners", "Connection", "Fallback", "Utilisation", "Errors"]
    ids = [panel["id"] for panel in board()["panels"]]
    assert len(set(ids)) == len(ids)
    assert all(panel["description"] for panel in board()["panels"] if panel["type"] != "row")


def test_alerts_fire_and_keep_quiet_as_they_should() -> None:
    """`promtool test rules`, with Prometheus' own engine."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    tests = Path(__file__).parents[1] / "prometheus" / "rules.test.yml"
    done = subprocess.run(["promtool", "test", "rules", tests], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = tests.read_text(encoding="utf-8")
    for alert in re.findall(r"- alert: (\w+)", RULES.read_text(encoding="utf-8")):
        assert f"alertname: {alert}" in told, f"{alert} is not tested"
