"""Reads the queries of the dashboard and of the alert rules."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).parents[1] / "configs"
RULES = CONFIGS / "prometheus" / "rules.yml"
DASHBOARD = CONFIGS / "grafana" / "dashboards" / "rayface.json"


def board() -> dict[str, Any]:
    known: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return known


def queries() -> list[tuple[str, str]]:
    """Each panel's title and query."""
    return [
        (panel["title"], target["expr"]) for panel in board()["panels"] for target in panel.get("targets", ())
    ]


def rules() -> list[str]:
    return re.findall(
        r"expr: (?:\|\n)?((?:.|\n)*?)\n        (?:for|labels):", RULES.read_text(encoding="utf-8")
    )
