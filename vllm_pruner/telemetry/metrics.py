"""Counters of every process, on vLLM's own `/metrics`.

The cache and the tower are in the workers, the plans in the API servers, and any API server may
answer `/metrics`. prometheus_client's multiprocess mode solves this: each process writes its counts
to memory-mapped files of its own in one folder, and the process that answers adds them up.

vLLM does the same when it runs several API servers, and then our files go into its folder. With one
API server there is no such folder, so `publish` creates one and adds it to what `/metrics` shows.
Workers on other machines do not share the folder and are not counted.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from prometheus_client import REGISTRY
from prometheus_client.metrics_core import Metric as PrometheusMetric
from prometheus_client.multiprocess import MultiProcessCollector

from vllm_pruner import envs
from vllm_pruner.telemetry import ray_exporter
from vllm_pruner.telemetry.metric import Histogram, Metric, set_engine, set_model

__all__ = [
    "FEATURE_BYTES",
    "FEATURE_HITS",
    "FEATURE_MISSES",
    "FLOORED",
    "IMAGES",
    "KEPT",
    "METHOD_FAULTS",
    "NO_TEXT",
    "ORIGINAL",
    "PREFILL_SECONDS_SAVED",
    "RATE",
    "REFUSALS",
    "REQUESTS",
    "RETRIES",
    "SELECTION_SECONDS",
    "SHADOW_AGREED",
    "SHADOW_AGREED_TOKENS",
    "SHADOW_COMPARED",
    "SHADOW_COMPARED_TOKENS",
    "SHADOW_LENGTH_DIFFERENCE",
    "SHADOW_LOGPROB_GAP",
    "SHADOW_SKIPPED",
    "TOWER_SECONDS",
    "VIDEOS",
    "Histogram",
    "Metric",
    "collected",
    "merged",
    "publish",
    "set_engine",
    "set_model",
    "totals",
]

_BY_METHOD = ("method",)
REQUESTS = Metric(
    "vtprune_requests", "Prompts with images or videos, by method; none: unpruned", _BY_METHOD
)
IMAGES = Metric("vtprune_images", "Images in prompts, by method; none: unpruned", _BY_METHOD)
VIDEOS = Metric("vtprune_videos", "Videos in prompts, by method; none: unpruned", _BY_METHOD)
ORIGINAL = Metric(
    "vtprune_visual_tokens_original",
    "Visual tokens of images and videos before pruning",
    _BY_METHOD,
)
FLOORED = Metric(
    "vtprune_floored_images",
    "Images that keep more than the rate says, by the floor",
    _BY_METHOD,
)
RATE = Metric(
    "vtprune_server_rate",
    "Rate of images whose request names no budget, in each API server, where it moves",
    kind="gauge_all",
)
KEPT = Metric(
    "vtprune_visual_tokens_kept", "Visual tokens of images and videos after pruning", _BY_METHOD
)
NO_TEXT = Metric("vtprune_no_text", "Images without text, under a method that reads the text")
REFUSALS = Metric("vtprune_refusals", "Requests answered 4xx because of their pruning settings")
METHOD_FAULTS = Metric(
    "vtprune_method_faults", "Requests failed by a faulty method of another package", _BY_METHOD
)
RETRIES = Metric(
    "vtprune_retries",
    "Requests that were answered again unpruned, as they ask for where the model is not sure",
    _BY_METHOD,
)
FEATURE_HITS = Metric(
    "vtprune_feature_cache_hits", "Images that skipped the vision tower", of_engine=True
)
FEATURE_MISSES = Metric(
    "vtprune_feature_cache_misses", "Images that the vision tower encoded", of_engine=True
)
FEATURE_BYTES = Metric(
    "vtprune_feature_cache_bytes", "Bytes of cached features", kind="gauge_sum", of_engine=True
)
TOWER_SECONDS = Metric("vtprune_tower_seconds", "Device time of the vision tower", of_engine=True)
SELECTION_SECONDS = Metric(
    "vtprune_selection_seconds", "Device time of selection", _BY_METHOD, of_engine=True
)
PREFILL_SECONDS_SAVED = Metric(
    "vtprune_prefill_seconds_saved",
    "Estimated device time of the prefill that pruning saved",
    _BY_METHOD,
    of_engine=True,
)

_BY_RATE = ("method", "rate")
SHADOW_COMPARED = Metric(
    "vtprune_shadow_compared",
    "Requests answered again, greedily, both pruned and unpruned, to compare the two answers",
    _BY_RATE,
)
SHADOW_AGREED = Metric(
    "vtprune_shadow_agreed", "Of these, those whose two answers are the same tokens", _BY_RATE
)
SHADOW_COMPARED_TOKENS = Metric(
    "vtprune_shadow_compared_tokens", "Tokens of the longer one of two compared answers", _BY_RATE
)
SHADOW_AGREED_TOKENS = Metric(
    "vtprune_shadow_agreed_tokens",
    "Tokens that two compared answers have in common before they first differ",
    _BY_RATE,
)
SHADOW_LOGPROB_GAP = Histogram(
    "vtprune_shadow_logprob_gap",
    "Absolute difference of log-probability of the unpruned answer's first token",
    (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    _BY_RATE,
)
SHADOW_LENGTH_DIFFERENCE = Histogram(
    "vtprune_shadow_length_difference",
    "Absolute difference in length of two compared answers, in tokens",
    (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0),
    _BY_RATE,
)
SHADOW_SKIPPED = Metric(
    "vtprune_shadow_skipped", "Requests drawn for comparison but not compared", ("reason",)
)


def publish() -> None:
    """Make this process, and those that it starts from now on, write counts for `/metrics`."""
    if (folder := envs.prometheus_folder()) is None:
        folder = _own_folder(os.getpid())
    envs.set_metrics_folder(folder)
    for rare in (NO_TEXT, REFUSALS):
        rare.add(0)  # an alert needs the series before the first event
    ray_exporter.start(collected)


def totals() -> dict[tuple[str, str], float]:
    """Return the counts of all processes and engines of this server, by metric name and method (""
    for metrics without one); empty unless `publish` was called."""
    found: defaultdict[tuple[str, str], float] = defaultdict(float)
    for metric in collected():
        for sample in metric.samples:
            found[metric.name, sample.labels.get("method", "")] += sample.value
    return dict(found)


def collected() -> Iterable[PrometheusMetric]:
    """Return the same with all labels, as prometheus_client's metrics."""
    return merged(folder, "*_vtprune-*.db") if (folder := envs.metrics_folder()) else ()


def merged(folder: str, pattern: str) -> Iterable[PrometheusMetric]:
    """Return what the processes of this server have written to the files of a folder, added up."""
    # A process that is just starting has an empty file, which `merge` cannot read.
    files = [str(file) for file in sorted(Path(folder).glob(pattern)) if file.stat().st_size]
    found: Iterable[PrometheusMetric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
    return found


@cache
def _own_folder(process: int) -> str:
    """Create a folder that is removed with this process, and add it to what `/metrics` shows."""
    folder = tempfile.mkdtemp(prefix="vtprune-metrics-")

    def remove() -> None:
        if os.getpid() == process:  # not in a fork
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    MultiProcessCollector(REGISTRY, folder)  # type: ignore[no-untyped-call]
    return folder
