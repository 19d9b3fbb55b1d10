"""How busy the engines are, as vLLM last said on `/metrics`.

An engine tells of its load with what it generates, each time to one of its API servers. With one
API server that is this process; with several, vLLM has them write to files in one folder, so each
of them finds here what any of them was told last.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from prometheus_client import REGISTRY, Metric

from vllm_pruner import envs
from vllm_pruner.telemetry.metrics import merged

__all__ = ["EngineLoad", "engine_load"]

_WAITING, _USED = "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"


class EngineLoad(NamedTuple):
    """Of all engines of this server."""

    waiting: float
    """Requests in their schedulers that do not run."""

    kv_cache: float
    """The share of the KV cache in use, where it is the most."""

    engines: int


def engine_load() -> EngineLoad | None:
    """Return the load; None if vLLM does not say it (`--disable-log-stats`)."""
    samples = [sample for metric in _gauges() for sample in metric.samples]
    waiting = [sample.value for sample in samples if sample.name == _WAITING]
    used = [sample.value for sample in samples if sample.name == _USED]
    return EngineLoad(sum(waiting), max(used, default=0.0), len(waiting)) if waiting else None


def _gauges() -> Iterable[Metric]:
    if (folder := envs.prometheus_folder()) is None:
        return REGISTRY.restricted_registry([_WAITING, _USED]).collect()
    return merged(folder, "gauge_*.db")  # levels alone, a small part of the files
