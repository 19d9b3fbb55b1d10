"""The same counts in Ray's own exporter, where vLLM's go when Ray runs the engine.

Ray's ingress has no `/metrics`: each node's agent tells Prometheus what its processes say through
`ray.util.metrics`, and puts `ray_` before the names. So a process of Ray that counts says there
what became more, every few seconds; nothing on the way of a request knows of it. Histograms cannot
be handed on, for Ray takes single observations: those of shadows stay on `/metrics`.
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
"""Between two rounds."""

_REPLICA = "ReplicaId"
"""vLLM's name for the label of a Ray Serve replica."""


@cache
def start(collected: Callable[[], Iterable[Any]]) -> None:
    """Begin, if this process belongs to a running Ray. Safe to call again.

    Args:
        collected: returns all counts so far, as Prometheus's metrics.
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
    """What Ray was told so far."""

    def __init__(self) -> None:
        self._metrics: dict[str, Any] = {}
        self._told: dict[tuple[Any, ...], float] = {}

    def export(self, collected: Iterable[Any]) -> None:
        """Tell Ray of counters what is new, of levels what they are.

        Args:
            collected: Prometheus's metrics.
        """
        replica = _replica()
        for metric in collected:
            if metric.type not in ("counter", "gauge"):
                continue
            for sample in metric.samples:
                tags = {**sample.labels, _REPLICA: replica}
                key = (metric.name, *sorted(tags.items()))
                ours = self._of(metric, tuple(tags))
                more = sample.value - self._told.get(key, 0.0)
                if metric.type == "gauge":
                    ours.set(sample.value, tags)
                elif more > 0:
                    ours.inc(more, tags)
                self._told[key] = sample.value

    def _of(self, metric: Any, tags: tuple[str, ...]) -> Any:
        from ray.util.metrics import Counter, Gauge

        if metric.name not in self._metrics:
            kind = Counter if metric.type == "counter" else Gauge
            self._metrics[metric.name] = kind(metric.name, metric.documentation, tags)
        return self._metrics[metric.name]


def _replica() -> str:
    """Return the name of the Ray Serve replica that this process is; empty outside of Serve."""
    serve = sys.modules.get("ray.serve")
    if serve is None:
        return ""
    try:
        return str(serve.get_replica_context().replica_id.unique_id)
    except serve.exceptions.RayServeException:
        return ""
