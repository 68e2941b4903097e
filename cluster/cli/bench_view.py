"""The tables of `rayface bench`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cluster.bench.compare import COMPARED
from cluster.bench.windows import PERCENTILES
from cluster.cli.printable import printable

_BAD = "bold red"
_SPEEDS = ("sent_bytes_per_s", "link_bytes_per_s")


def tables(report: Mapping[str, Any]) -> RenderableType:
    """A report as tables, one row for each load; what went wrong stands above them."""
    loads: Sequence[Mapping[str, Any]] = report["loads"]
    return Group(
        *_head(report),
        *_warnings(loads),
        _latencies(loads),
        Text("\nmilliseconds of a call, by stage", style="bold"),
        _by_name(loads, "stage_ms", 1),
        Text(f"\ncores in use, of {report['machine']['num_cores']}", style="bold"),
        _by_name(loads, "cores", 2),
        Text("\nhow photos travelled", style="bold"),
        _travel(loads),
    )


def comparison(compared: Mapping[str, Any], file: str) -> RenderableType:
    """What `compare.compare` found, as a table of ratios and a list of differences."""
    table = Table("load", *COMPARED, box=None, header_style="bold")
    for load, ratios in compared["ratios"].items():
        table.add_row(load, *("-" if ratios[name] is None else f"{ratios[name]:.2f}" for name in COMPARED))
    lines = [f"{name}: {each['earlier']} → {each['now']}" for name, each in compared["differences"].items()]
    for which, key in (("only now", "only_now"), ("only earlier", "only_earlier")):
        if compared[key]:
            lines.append(f"{which}: {', '.join(compared[key])}")
    return Group(
        Text(f"\nnow, divided by {printable(file)}", style="bold"),
        table,
        Text("\nwhat differs" if lines else "\nsettings and machine are the same", style="bold"),
        *(Text(printable(line)) for line in lines),
    )


def _head(report: Mapping[str, Any]) -> list[Text]:
    bench, detectors = report["bench"], report["detectors"]
    each_call = bench["images_per_call"]
    words = [bench["images"], f"{each_call} image{'s' if each_call > 1 else ''} a call", bench["priority"]]
    lines = [Text(" · ".join(words), style="bold")]
    lines += [
        Text(printable(f"{name} on {each['host']}: {each['provider']}, {each['model'].partition('@')[0]}"))
        for name, each in detectors.items()
    ]
    return [*lines, Text()]


def _warnings(loads: Sequence[Mapping[str, Any]]) -> list[Text]:
    """Everything that makes a figure doubtful, loudest first."""
    lines: list[Text] = []
    for each in loads:
        for status in ("failed", "rejected"):
            lines += [
                _bad(f"{each['load']}: {num} {status} ({reason}): {each['details'][reason]}")
                for reason, num in each["outcomes"][status].items()
            ]
        lines += [
            _bad(f"{each['load']}: this machine's CPU answered {num} images: {reason}")
            for reason, num in each["fallback"].items()
        ]
        if each["device"]["num_restarted"]:
            lines.append(Text(f"{each['load']}: a detector was away, or started again", style=_BAD))
    lines += [
        Text(
            f"{each['load']}: not steady after {each['num_windows']} windows; a longer --window or more "
            "--max-windows may help",
            style="yellow",
        )
        for each in loads
        if not each["is_steady"]
    ]
    return [*lines, *([Text()] if lines else [])]


def _bad(line: str) -> Text:
    return Text(printable(line), style=_BAD)


def _latencies(loads: Sequence[Mapping[str, Any]]) -> Table:
    names = [f"p{each}" for each in PERCENTILES]
    # A terminal of 80 columns has no room for a column that is all zeros.
    refused = ["refused"] if any(each["num_refused"] for each in loads) else []
    table = Table("load", "images/s", *(f"{name} ms" for name in names), "busy", "fill", "batch", *refused)
    _plain(table)
    for each in loads:
        device = each["device"]
        table.add_row(
            each["load"],
            f"{each['images_per_s']:.1f}",
            *(_number(each["latency_ms"][name], 1) for name in names),
            *(_number(device[name], 2) for name in ("busy", "fill", "mean_batch")),
            *(str(each["num_refused"]) for _ in refused),
        )
    return table


def _by_name(loads: Sequence[Mapping[str, Any]], key: str, digits: int) -> Table:
    """A column for each name below `key` that has a figure under some load."""
    names = [name for name in loads[0][key] if any(round(each[key][name], digits) for each in loads)]
    table = Table("load", *names)
    _plain(table)
    for each in loads:
        table.add_row(each["load"], *(_number(each[key][name], digits) for name in names))
    return table


def _travel(loads: Sequence[Mapping[str, Any]]) -> Table:
    """The wire, the bytes that were sent, and the speed of the links as the calls measured it."""
    table = Table("load", "wire", "sent MB/s", "link MB/s")
    _plain(table)
    for each in loads:
        network = each["network"]
        speeds = (None if network[name] is None else network[name] / 1e6 for name in _SPEEDS)
        table.add_row(
            each["load"], ", ".join(network["wire"]) or "-", *(_number(speed, 1) for speed in speeds)
        )
    return table


def _plain(table: Table) -> None:
    table.box, table.header_style = None, "bold"
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
