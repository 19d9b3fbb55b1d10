"""Export the metrics through Ray as well, as vLLM does with its own when Ray runs the engine.

Ray's ingress has no `/metrics`: each node's agent exports to Prometheus what the node's processes
report through `ray.util.metrics`, with the prefix `ray_`. So a thread in each process that counts
reports the increase every few seconds, outside the path of requests. A histogram is reported as
counters of its ranges, its sum and its count, because Ray's own takes single observations.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

__all__ = ["start"]

SECONDS = 5.0
"""Time between two reports."""

_REPLICA = "ReplicaId"
"""vLLM's name for the label of a Ray Serve replica."""


@cache
def start(collected: Callable[[], Iterable[Any]]) -> None:
    """Start the thread if this process belongs to a running Ray. Safe to call again.

    Args:
        collected: returns the current metrics, as prometheus_client has them.
    """
    ray = sys.modules.get("ray")
    if ray is not None and getattr(ray, "is_initialized", bool)():
        name = "vtprune-ray-metrics"
        threading.Thread(target=_run, args=(collected,), name=name, daemon=True).start()


def _run(collected: Callable[[], Iterable[Any]]) -> None:
    exporter = Exporter()
    while True:
        time.sleep(SECONDS)
        exporter.export(collected())


class Exporter:
    """Reports to Ray, and remembers what it has reported."""

    def __init__(self) -> None:
        self._metrics: dict[str, Any] = {}
        self._told: dict[tuple[Any, ...], float] = {}

    def export(self, collected: Iterable[Any]) -> None:
        """Report the increase of counters and histograms and the value of gauges.

        Args:
            collected: the current metrics.
        """
        replica = _replica()
        for metric in collected:
            for sample in metric.samples:
                name = sample.name if metric.type == "histogram" else metric.name
                tags = {**sample.labels, _REPLICA: replica}
                key = (name, *sorted(tags.items()))
                ours = self._of(name, metric, tuple(tags))
                more = sample.value - self._told.get(key, 0.0)
                if metric.type == "gauge":
                    ours.set(sample.value, tags)
                elif more > 0:
                    ours.inc(more, tags)
                self._told[key] = sample.value

    def _of(self, name: str, metric: Any, tags: tuple[str, ...]) -> Any:
        from ray.util.metrics import Counter, Gauge

        if name not in self._metrics:
            kind = Gauge if metric.type == "gauge" else Counter
            self._metrics[name] = kind(name, metric.documentation, tags)
        return self._metrics[name]


def _replica() -> str:
    """Return the name of the Ray Serve replica that this process is; empty outside of Serve."""
    serve = sys.modules.get("ray.serve")
    if serve is None:
        return ""
    try:
        return str(serve.get_replica_context().replica_id.unique_id)
    except serve.exceptions.RayServeException:
        return ""
