"""The report of a bench as JSON-ready values: machine, settings, and what was measured under each load."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from actors.faces import Health
from actors.intake import num_cores
from cluster.bench.figures import Figures
from cluster.bench.limit import FAULTS, limit_of
from cluster.bench.measure import Measured, Plan
from cluster.bench.windows import PERCENTILES, percentile
from cluster.settings import Settings

_CPU_PROVIDER = "CPUExecutionProvider"


def report(
    settings: Settings, images: str, plan: Plan, healths: Iterable[Health], measured: Sequence[Measured]
) -> dict[str, Any]:
    """Put everything together, as `rayface bench --json` prints it.

    Args:
        settings: of the client.
        images: what was sent, in words.
        plan: how long each load was measured.
        healths: of the detectors.
        measured: one for each load; at least one.
    """
    detectors = list(healths)
    loads = [_row(each, settings, detectors) for each in measured]
    calls = measured[0].calls
    return {
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "num_cores": num_cores(),
            "python": platform.python_version(),
            "rayface": importlib.metadata.version("rayface"),
            "ray": importlib.metadata.version("ray"),
        },
        "detectors": {
            each.name: {
                "host": each.host,
                "device": each.device,
                "provider": each.provider,
                "model": each.stamp.model,
                "num_lanes": each.num_lanes,
            }
            for each in detectors
        },
        "settings": settings.model_dump(mode="json", include={"detector", "client", "fallback"})
        | {"embedded": settings.cluster.address is None},
        "bench": {
            "images": images,
            "images_per_call": calls.images_per_call,
            "priority": str(calls.priority),
            "deadline_s": calls.deadline_s or settings.client.deadline_s,
            "warm_up_s": plan.warm_up_s,
            "window_s": plan.window_s,
            "max_windows": plan.max_windows,
        },
        "loads": loads,
        "limit": _last_word(loads),
    }


def figures_of(measured: Measured, settings: Settings, detectors: Sequence[Health]) -> Figures:
    """What the choice of the limit needs of a measurement."""
    window, here = measured.window, platform.node()
    num_threads = settings.client.num_prepare_threads or measured.spent.num_cores
    return Figures(
        num_images=window.num_images,
        failed=_reasons(measured, "failed"),
        rejected=_reasons(measured, "rejected"),
        num_by_fallback=window.fallback.total(),
        num_refused=measured.stages.num_refused,
        images_per_s=window.images_per_s,
        rate=measured.load.rate,
        seconds=window.seconds,
        num_due=measured.num_due,
        num_calls=len(window.latencies_ms),
        is_gone=measured.is_gone,
        num_outstanding=measured.num_outstanding,
        num_callers=measured.load.concurrency,
        device_busy=measured.device.busy,
        fill=measured.device.fill,
        on_processor=any(each.host == here and each.provider == _CPU_PROVIDER for each in detectors),
        is_here=all(each.host == here for each in detectors),
        cores=measured.spent.cores,
        num_cores=measured.spent.num_cores,
        prepare_cores=window.prepare_ms / 1000 / window.seconds if window.seconds else 0.0,
        num_prepare_threads=num_threads,
        stage_ms=measured.stages.ms_a_call(),
        sent_bytes_per_s=measured.spent.sent_bytes_per_s,
        link_bytes_per_s=measured.travel.link_bytes_per_s,
        nominal_bytes_per_s=measured.spent.nominal_bytes_per_s,
        encodings=str(measured.travel),
        wire=settings.client.wire,
        max_images_in_flight=settings.client.max_images_in_flight,
    )


def _row(measured: Measured, settings: Settings, detectors: Sequence[Health]) -> dict[str, Any]:
    window, device, spent = measured.window, measured.device, measured.spent
    latencies = window.latencies_ms
    seconds, num_images = window.seconds or 1.0, window.num_images
    limit = limit_of(figures_of(measured, settings, detectors))
    return {
        "load": str(measured.load),
        "concurrency": measured.load.concurrency,
        "rate": measured.load.rate,
        "is_steady": measured.is_steady,
        "num_windows": measured.num_windows,
        "seconds": round(window.seconds, 3),
        "num_calls": len(latencies),
        "num_due": measured.num_due,
        "images_per_s": round(window.images_per_s, 2),
        "latency_ms": {
            "mean": round(sum(latencies) / len(latencies), 2) if latencies else None,
            **{f"p{each}": _percentile_or_none(latencies, each) for each in PERCENTILES},
        },
        "num_outstanding": measured.num_outstanding,
        "outstanding_grew": measured.grew,
        "outcomes": {
            "detected": window.num("detected"),
            "rejected": _reasons(measured, "rejected"),
            "failed": _reasons(measured, "failed"),
        },
        "details": {reason: said for (_, reason), said in window.details.items()},
        "fallback": dict(window.fallback),
        "served_by": dict(window.served_by),
        "num_refused": measured.stages.num_refused,
        "device": {
            "busy": _rounded(device.busy),
            "fill": _rounded(device.fill),
            "mean_batch": _rounded(device.mean_batch),
            "num_runs": device.num_runs,
            "num_devices": device.num_devices,
            "num_restarted": device.num_restarted,
        },
        "stage_ms": {name: round(ms, 3) for name, ms in measured.stages.ms_a_call().items()},
        "prepare_ms_per_image": round(window.prepare_ms / num_images, 3) if num_images else None,
        "cores": {kind: round(used, 3) for kind, used in spent.cores.items()},
        "num_cores": spent.num_cores,
        "processor_ms_per_image": {
            kind: round(used * 1000 * seconds / num_images, 3) if num_images else None
            for kind, used in spent.cores.items()
        },
        "network": {
            "wire": list(measured.travel.encodings),
            "sent_bytes_per_s": round(spent.sent_bytes_per_s),
            "link_bytes_per_s": _whole(measured.travel.link_bytes_per_s),
            "nominal_bytes_per_s": _whole(spent.nominal_bytes_per_s),
        },
        "limit": {"kind": str(limit.kind), "sentence": limit.sentence},
    }


def _last_word(loads: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The limit under a load with a fault, if there is one; else under the load with the most images/s."""
    faulty = [each for each in loads if each["limit"]["kind"] in FAULTS]
    chosen = faulty[0] if faulty else max(loads, key=lambda each: float(each["images_per_s"]))
    return {"load": chosen["load"], **chosen["limit"]}


def _reasons(measured: Measured, status: str) -> dict[str, int]:
    return {reason: num for (each, reason), num in measured.window.outcomes.items() if each == status}


def _percentile_or_none(values: Sequence[float], percent: float) -> float | None:
    return round(percentile(values, percent), 2) if values else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
