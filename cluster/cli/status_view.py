"""What `rayface status` shows: machines, detectors, owners, figures, clients and their circuits."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from actors.faces import Health
from cluster.client.detector import Detector
from cluster.client.detector_pool import DetectorPool
from cluster.client.registry import ClientEntry, read_clients
from cluster.connection.cluster_api import ClusterApi, Node
from cluster.errors import ClusterUnavailable, NotAnswered
from cluster.node.contract import RESOURCE

_ANSWER_WITHIN_S = 5.0
_COLUMNS = (
    "detector",
    "state",
    "device",
    "provider",
    "host",
    "pid",
    "since",
    "queue",
    "images/s",
    "busy",
    "fill",
    "golden",
)
_COLOURS = {
    "ready": "green",
    "closed": "green",
    "open": "red",
    "faulty": "red",
    "away": "red",
    "half_open": "yellow",
    "starting": "yellow",
    "draining": "yellow",
}


class StatusView:
    """Looks again and again; figures are of the time between two looks, the first's of the time since start.

    Args:
        cluster: asked for all of it.
        pool: that only looks.
    """

    def __init__(self, cluster: ClusterApi, pool: DetectorPool) -> None:
        self._cluster = cluster
        self._pool = pool
        self._before: dict[str, Health] = {}

    async def look(self) -> tuple[dict[str, Any], RenderableType]:
        """Everything that there is to be seen, as JSON-ready values and as a page.

        Raises:
            ClusterUnavailable: the cluster does not answer.
        """
        try:
            await self._pool.look()
            nodes = await self._cluster.nodes(timeout_s=_ANSWER_WITHIN_S)
            notes = await read_clients(self._cluster)
        except NotAnswered as error:
            raise ClusterUnavailable(
                f"The cluster at {self._cluster.address} does not say how it is. {error}"
            ) from error
        detectors = [self._row(each) for each in self._pool.detectors.values()]
        circuits = [each for note in notes for each in note.status["detectors"]]
        what = {
            "at": time.time(),
            "address": self._cluster.address,
            "well": bool(detectors)
            and all(each["state"] == "ready" for each in detectors)
            and all(each["circuit"] == "closed" for each in circuits),
            "nodes": [asdict(each) for each in nodes],
            "detectors": detectors,
            "clients": [asdict(each) for each in notes],
        }
        return what, self._page(nodes, detectors, notes)

    def _row(self, detector: Detector) -> dict[str, Any]:
        health = detector.health
        if health is None:
            return {"name": detector.name, "state": "away", "detail": detector.last_error}
        figures = rates(self._before.get(detector.name), health)
        self._before[detector.name] = health
        return {
            "name": health.name,
            "state": "away" if detector.is_away else str(health.state),
            "detail": detector.last_error if detector.is_away else health.detail,
            "device": health.device,
            "provider": health.provider,
            "host": health.host,
            "pid": health.pid,
            "owner_since": health.owner_since,
            "incarnation": health.stamp.incarnation,
            "num_queued": health.num_queued,
            "golden_age_s": health.golden_age_s,
            "last_words": health.last_words,
            **figures,
            "health": health.as_dict(),
        }

    def _page(
        self, nodes: Sequence[Node], detectors: Sequence[dict[str, Any]], notes: Sequence[ClientEntry]
    ) -> RenderableType:
        head = Text(f"cluster {self._cluster.address}", style="bold")
        machines = table(
            ("machine", "lends"), [{"machine": _name(each), "lends": _lent(each)} for each in nodes]
        )
        shown = table(
            _COLUMNS,
            [_shown(each) for each in detectors],
        )
        below = [Text(said) for each in detectors for said in _said(each)]
        who = clients(notes) if notes else Text("no client")
        return Group(head, machines, Text(""), shown, *below, Text(""), who)


def rates(before: Health | None, now: Health) -> dict[str, float | None]:
    """Images a second, how busy the device was (0..1, of its lanes), how full its batches; between two looks.

    By the detector's own clock; since its process began, where there is no look before.
    """
    same = before is not None and before.stamp.incarnation == now.stamp.incarnation
    past = before if same and before is not None else None
    seconds = now.uptime_s - (past.uptime_s if past else 0.0)
    images = now.num_images_run - (past.num_images_run if past else 0)
    places = now.num_slots - (past.num_slots if past else 0)
    busy_s = now.busy_s - (past.busy_s if past else 0.0)
    return {
        "images_per_s": round(images / seconds, 2) if seconds > 0 else None,
        "busy": round(busy_s / seconds / max(1, now.num_lanes), 3) if seconds > 0 else None,
        "fill": round(images / places, 3) if places else None,
    }


def clients(notes: Sequence[ClientEntry]) -> Table:
    """Each client with what it asks, its circuits, and what its CPU did."""
    rows = []
    for note in notes:
        status = note.status
        by_cpu, num = sum(status["fallback"].values()), sum(status["outcomes"].values())
        for each in status["detectors"] or [{"name": "none", "detail": status["why_not"]}]:
            rows.append(
                {
                    "client": note.client,
                    "images": num,
                    "failed": status["outcomes"].get("failed", 0),
                    "by CPU": f"{by_cpu} ({by_cpu / max(1, num):.1%})",
                    "asks": each["name"],
                    "circuit": each.get("circuit", ""),
                    "last calls": f"{each.get('num_failed', 0)}/{each.get('num_calls', 0)} failed",
                    "opened": each.get("num_opened", ""),
                    "why": each.get("detail") or status["paused"],
                }
            )
    columns = ("client", "images", "failed", "by CPU", "asks", "circuit", "last calls", "opened", "why")
    return table(columns, rows)


def table(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> Table:
    """Rows of text, a state in its colour."""
    made = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        cells = [str(row.get(column, "")) for column in columns]
        made.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in cells))
    return made


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    if "device" not in row:
        return {"detector": row["name"], "state": row["state"]}
    since = row["owner_since"]
    age = row["golden_age_s"]
    return {
        "detector": row["name"],
        **row,
        "since": time.strftime("%Y-%m-%d %H:%M", time.localtime(since)) if since else "-",
        "queue": row["num_queued"],
        "images/s": _figure(row["images_per_s"], "{:.1f}"),
        "busy": _figure(row["busy"], "{:.0%}"),
        "fill": _figure(row["fill"], "{:.0%}"),
        "golden": "never" if age is None else f"{age:.0f} s ago",
    }


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _said(row: dict[str, Any]) -> Iterator[str]:
    """What does not fit into a table."""
    if row["detail"]:
        yield f"  {row['name']}: {row['detail']}"
    if row.get("last_words"):
        yield f"  {row['name']}: the process before this one ended itself ({row['last_words']})"
    if row.get("incarnation"):
        yield f"  {row['name']}: incarnation {row['incarnation']}"


def _name(node: Node) -> str:
    return node.address if node.name == node.address else f"{node.name} ({node.address})"


def _lent(node: Node) -> str:
    units = node.resources.get(RESOURCE, 0)
    return f"{units:g} {RESOURCE}" if units else "-"
