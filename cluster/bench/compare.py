"""Compares a report with an earlier one: ratios for each load that both have, and what else differs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cluster.errors import ConfigurationError

#: What is compared of each load: its name, and where it stands in the report.
COMPARED: Mapping[str, tuple[str, ...]] = {
    "images/s": ("images_per_s",),
    "p50": ("latency_ms", "p50"),
    "p95": ("latency_ms", "p95"),
    "p99": ("latency_ms", "p99"),
    "busy": ("device", "busy"),
    "fill": ("device", "fill"),
}
#: What must be the same for the ratios to mean anything.
_SURROUNDINGS = ("machine", "detectors", "settings", "bench")


def read_report(path: Path) -> dict[str, Any]:
    """Read what an earlier `rayface bench --json` printed.

    Raises:
        ConfigurationError: the file cannot be read, or is no such report.
    """
    advice = "Make a report with `rayface bench --json > FILE`, and compare with that."
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}). {advice}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is no JSON ({error}). {advice}") from error
    if missing := _missing(earlier):
        raise ConfigurationError(
            f"{path} is JSON of another kind, and no report of a bench: it has no {missing}. {advice}"
        )
    return dict(earlier)


def _missing(found: object) -> str:
    """What JSON lacks to be a report, in words; empty if it is one."""
    if not isinstance(found, dict):
        return "names"
    if absent := [name for name in _SURROUNDINGS if not isinstance(found.get(name), dict)]:
        return ", ".join(f'"{name}"' for name in absent)
    loads = found.get("loads")
    if not isinstance(loads, list) or not loads:
        return 'list "loads"'
    whole = all(isinstance(each, dict) and {"load", "latency_ms"} <= each.keys() for each in loads)
    return "" if whole else '"load" and "latency_ms" in each of its loads'


def compare(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Compare two reports.

    Returns:
        `ratios`: by load, the present figure divided by the earlier one, by the names of `COMPARED`; None
            where one of them is missing or zero.
        `only_now`, `only_earlier`: loads that one report has alone.
        `differences`: by setting, the earlier and the present value, where they are not the same.
    """
    before = {each["load"]: each for each in earlier["loads"]}
    after = {each["load"]: each for each in now["loads"]}
    return {
        "ratios": {
            load: {name: _ratio(_at(before[load], path), _at(row, path)) for name, path in COMPARED.items()}
            for load, row in after.items()
            if load in before
        },
        "only_now": [load for load in after if load not in before],
        "only_earlier": [load for load in before if load not in after],
        "differences": _differences(earlier, now),
    }


def _differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    before = {name: value for part in _SURROUNDINGS for name, value in _leaves(earlier.get(part), part)}
    after = {name: value for part in _SURROUNDINGS for name, value in _leaves(now.get(part), part)}
    return {
        name: {"earlier": before.get(name), "now": after.get(name)}
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    }


def _leaves(value: object, name: str) -> Iterator[tuple[str, object]]:
    """Every value below a mapping, with its dotted name."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from _leaves(below, f"{name}.{key}")
    else:
        yield name, value


def _at(row: Mapping[str, Any], path: tuple[str, ...]) -> float | None:
    value: Any = row
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) else None


def _ratio(earlier: float | None, now: float | None) -> float | None:
    return None if now is None or not earlier else round(now / earlier, 3)
