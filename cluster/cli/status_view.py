"""`StatusView`: what `rayface status` shows: machines, detectors, owners, figures, clients and circuits."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from actors.faces import Health
from actors.settings import DetectorSettings
from cluster.cli.printable import printable
from cluster.client.detector import Detector
from cluster.client.detector_pool import DetectorPool
from cluster.client.fitting import differences
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
    "waiting": "yellow",
    "draining": "yellow",
}


class StatusView:
    """What `rayface status` shows, as often as it is asked.

    Figures are of the time between two looks; those of the first look, since the detector's start.

    Args:
        cluster: answers the questions about machines and clients.
        pool: the detectors; it only looks, and places none.
        own: this machine's settings of a detector; a detector says where it was placed with others. None
            compares none.
    """

    def __init__(self, cluster: ClusterApi, pool: DetectorPool, own: DetectorSettings | None = None) -> None:
        self._own = own
        self._cluster = cluster
        self._pool = pool
        self._before: dict[str, Health] = {}

    async def look(self) -> tuple[dict[str, Any], RenderableType]:
        """Ask the cluster now; returns JSON-ready values, and the same as a page for a terminal.

        Raises:
            ClusterUnavailable: the cluster does not answer.
        """
        try:
            await self._pool.look()
            nodes = await self._cluster.nodes(timeout_s=_ANSWER_WITHIN_S)
            entries = await read_clients(self._cluster)
        except NotAnswered as error:
            raise ClusterUnavailable(
                f"The cluster at {self._cluster.address} does not say how it is. {error} `rayface doctor` "
                "says more."
            ) from error
        detectors = [self._row(each) for each in self._pool.detectors.values()]
        circuits = [each for entry in entries for each in entry.status["detectors"]]
        values = {
            "at": time.time(),
            "address": self._cluster.address,
            "well": bool(detectors)
            and all(each["state"] == "ready" for each in detectors)
            and all(each["circuit"] == "closed" for each in circuits),
            "nodes": [asdict(each) for each in nodes],
            "detectors": detectors,
            "clients": [asdict(each) for each in entries],
        }
        return values, self._page(nodes, detectors, entries)

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
            "other_settings": differences(health, self._own) if self._own else [],
            **figures,
            "health": health.as_dict(),
        }

    def _page(
        self, nodes: Sequence[Node], detectors: Sequence[dict[str, Any]], entries: Sequence[ClientEntry]
    ) -> RenderableType:
        head = Text(printable(f"cluster {self._cluster.address}"), style="bold")
        machines = table(
            ("machine", "lends"), [{"machine": _name(each), "lends": _lent(each)} for each in nodes]
        )
        shown = table(
            _COLUMNS,
            [_shown(each) for each in detectors],
        )
        below = [Text(printable(line)) for each in detectors for line in _details(each)]
        sizes = batches(detectors)
        asking = clients(entries) if entries else Text("no client")
        return Group(head, machines, Text(""), shown, *below, Text(""), sizes, Text(""), asking)


def rates(before: Health | None, now: Health) -> dict[str, float | None]:
    """A detector's figures between two looks, by its own clock; since its process began, without `before`.

    Returns:
        `images_per_s`; `busy`, the share of the time that its lanes ran, 0..1; `fill`, the share of the batch
        slots that held an image, 0..1. A figure is None if nothing ran.
    """
    same = before is not None and before.stamp.incarnation == now.stamp.incarnation
    past = before if same and before is not None else None
    seconds = now.uptime_s - (past.uptime_s if past else 0.0)
    images = now.num_images_run - (past.num_images_run if past else 0)
    slots = now.num_slots - (past.num_slots if past else 0)
    busy_s = now.busy_s - (past.busy_s if past else 0.0)
    return {
        "images_per_s": round(images / seconds, 2) if seconds > 0 else None,
        "busy": round(busy_s / seconds / max(1, now.num_lanes), 3) if seconds > 0 else None,
        "fill": round(images / slots, 3) if slots else None,
    }


def batches(detectors: Sequence[dict[str, Any]]) -> Table:
    """A row for each detector and tensor: the batch size used now, and the time of each measured size."""
    rows = []
    for each in detectors:
        health = each.get("health", {})
        timings = health.get("buckets", ())
        for height, width in health.get("shapes", ()):
            of_shape = [one for one in timings if (one["height"], one["width"]) == (height, width)]
            if of_shape:
                latest = min(of_shape, key=lambda one: one["age_s"])
                rows.append(
                    {
                        "detector": each["name"],
                        "tensor": f"{height} x {width}",
                        "batch": next((one["num_images"] for one in of_shape if one["is_used"]), "-"),
                        "ms a run": ", ".join(
                            f"{one['num_images']}: {one['run_ms']:.1f}" for one in of_shape
                        ),
                        "runs": sum(one["num_runs"] for one in of_shape),
                        "last": f"{latest['age_s']:.0f} s ago",
                    }
                )
    return table(("detector", "tensor", "batch", "ms a run", "runs", "last"), rows)


def clients(entries: Sequence[ClientEntry]) -> Table:
    """A row for each client and detector: the circuit, the calls, and what the client's CPU answered."""
    rows = []
    for entry in entries:
        status = entry.status
        by_cpu, num = sum(status["fallback"].values()), sum(status["outcomes"].values())
        for each in status["detectors"] or [{"name": "none", "detail": status["why_not"]}]:
            rows.append(
                {
                    "client": entry.client,
                    "images": num,
                    "failed": status["outcomes"].get("failed", 0),
                    "by CPU": f"{by_cpu} ({by_cpu / max(1, num):.1%})",
                    "asks": each["name"],
                    "circuit": each.get("circuit", ""),
                    "last calls": f"{each.get('num_failed', 0)}/{each.get('num_calls', 0)} failed",
                    "opened": each.get("num_opened", ""),
                    "wire": _wire(each),
                    "why": each.get("detail") or status["paused"],
                }
            )
    columns = ("client", "images", "failed", "by CPU", "asks", "circuit", "last calls", "opened")
    return table((*columns, "wire", "why"), rows)


def _wire(detector: Mapping[str, Any]) -> str:
    """How photos travel, and how fast the link is."""
    speed = detector.get("link_mbit_s")
    return str(detector.get("wire", "")) + ("" if speed is None else f", {speed:,.0f} Mbit/s")


def table(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> Table:
    """A table of these columns; a cell that names a state has the state's colour."""
    made = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        cells = [str(row.get(column, "")) for column in columns]
        # Names and reasons come from other machines; a terminal must not obey them.
        made.add_row(*(Text(printable(cell), style=_COLOURS.get(cell, "")) for cell in cells))
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


def _details(row: dict[str, Any]) -> Iterator[str]:
    """Lines about a detector that do not fit into the table."""
    if row["detail"]:
        yield f"  {row['name']}: {row['detail']}"
    if row.get("last_words"):
        yield f"  {row['name']}: the process before this one ended itself ({row['last_words']})"
    if others := row.get("other_settings"):
        yield f"  {row['name']}: it was placed with {'; '.join(others)}"
    if row.get("incarnation"):
        yield f"  {row['name']}: incarnation {row['incarnation']}"


def _name(node: Node) -> str:
    return node.address if node.name == node.address else f"{node.name} ({node.address})"


def _lent(node: Node) -> str:
    units = node.resources.get(RESOURCE, 0)
    return f"{units:g} {RESOURCE}" if units else "-"
