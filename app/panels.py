"""The dashboard's panels as figures, for a page without Grafana: asks Prometheus the same queries."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cluster import own_config

_TIMEOUT_S = 5.0
_NUM_POINTS = 120


class Panels:
    """Asks Prometheus the queries of a Grafana dashboard.

    Args:
        prometheus: the address of Prometheus, "http://HOST:PORT".
        dashboard: the file of a Grafana dashboard; None takes our own.
    """

    def __init__(self, prometheus: str, dashboard: Path | None = None) -> None:
        self._prometheus = prometheus.rstrip("/")
        path = dashboard or own_config("grafana/dashboards/rayface.json")
        self._panels: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["panels"]

    def figures(self, seconds: float = 900.0) -> list[dict[str, Any]]:
        """Ask for every panel; returns the dashboard's rows, with series over the last `seconds`.

        Returns:
            JSON-ready: rows with `title` and `panels`; a panel has `title`, `description`, `unit`, `series`
            (each `legend` and `points`, pairs of seconds since 1970 and a number) and `error`, a sentence
            where Prometheus did not answer.
        """
        with ThreadPoolExecutor(8) as threads:
            asked = [
                (panel, [threads.submit(self._series, each, seconds) for each in panel.get("targets", ())])
                for panel in self._panels
            ]
            rows: list[dict[str, Any]] = []
            for panel, answers in asked:
                if panel["type"] == "row":
                    rows.append({"title": panel["title"], "panels": []})
                    continue
                series, errors = [], []
                for answer in answers:
                    try:
                        series += answer.result()
                    except (OSError, ValueError, KeyError) as error:
                        errors.append(
                            f"Prometheus at {self._prometheus} does not answer: {error}. Check "
                            "RAYFACE_APP_PROMETHEUS, which names its address."
                        )
                rows[-1]["panels"].append(
                    {
                        "title": panel["title"],
                        "description": panel["description"],
                        "unit": panel["fieldConfig"]["defaults"]["unit"],
                        "series": series,
                        "error": next(iter(errors), ""),
                    }
                )
        return rows

    def _series(self, target: dict[str, Any], seconds: float) -> list[dict[str, Any]]:
        now = time.time()
        asked = {
            "query": target["expr"],
            "start": f"{now - seconds:.0f}",
            "end": f"{now:.0f}",
            "step": f"{max(5.0, seconds / _NUM_POINTS):.0f}",
        }
        url = f"{self._prometheus}/api/v1/query_range?{urllib.parse.urlencode(asked)}"
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            found = json.load(answer)["data"]["result"]
        return [
            {
                "legend": _legend(target["legendFormat"], each["metric"]),
                "points": [(at, float(value)) for at, value in each["values"] if value != "NaN"],
            }
            for each in found
        ]


def _legend(template: str, labels: dict[str, str]) -> str:
    return re.sub(r"{{\s*(\w+)\s*}}", lambda name: labels.get(name[1], ""), template).strip() or "all"
