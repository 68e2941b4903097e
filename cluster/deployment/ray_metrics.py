"""Our metrics as Ray's own objects (`ray.util.metrics`), in a process that has joined a cluster."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from cluster.telemetry.metrics import ALL_METRICS, Metric


class RayMetrics:
    """Puts observations into Ray's metrics; makes each of Ray's objects when it is first used.

    Args:
        metrics: all that may be observed.
    """

    def __init__(self, metrics: Iterable[Metric] = ALL_METRICS) -> None:
        self._known = {each.name: each for each in metrics}
        self._made: dict[str, Any] = {}
        self._lock = threading.Lock()

    def observe(self, name: str, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Add to a counter, set a gauge, or put into a histogram.

        Raises:
            KeyError: there is no metric of that name.
        """
        metric, made = self._known[name], self._object(name)
        labels = dict(tags or {})
        if metric.kind == "counter":
            if value > 0:
                made.inc(value, tags=labels)
        elif metric.kind == "gauge":
            made.set(value, tags=labels)
        else:
            made.observe(value, tags=labels)

    def _object(self, name: str) -> Any:
        from ray.util import metrics

        with self._lock:
            if name not in self._made:
                metric = self._known[name]
                options: dict[str, Any] = {"description": metric.description, "tag_keys": metric.tags}
                if metric.kind == "histogram":
                    options["boundaries"] = list(metric.bounds)
                kind = {"counter": metrics.Counter, "gauge": metrics.Gauge, "histogram": metrics.Histogram}
                self._made[name] = kind[metric.kind](name, **options)
            return self._made[name]
