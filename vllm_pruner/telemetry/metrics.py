"""Counters of every process, on vLLM's own `/metrics`.

The cache and the tower are in the workers, the plans in the API servers, and any API server may be
the one that answers `/metrics`. prometheus_client solves this for web servers: each process writes
its counts to files of its own in one folder, mapped into memory, and whoever answers adds them up.
A count is a few machine words written: no message, no lock between processes, no wait for a device.

vLLM does the same when it runs several API servers, and then its folder takes our files too. With
one API server there is no such folder, so `publish` makes one and adds it to what `/metrics` shows.
Workers on other machines do not see the folder and are not counted.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

from vllm_pruner import envs

__all__ = [
    "FEATURE_BYTES",
    "FEATURE_HITS",
    "FEATURE_MISSES",
    "IMAGES",
    "KEPT",
    "METHOD_FAULTS",
    "NO_TEXT",
    "ORIGINAL",
    "PREFILL_SECONDS_SAVED",
    "REFUSALS",
    "REQUESTS",
    "SELECTION_SECONDS",
    "TOWER_SECONDS",
    "Metric",
    "publish",
    "totals",
]

logger = logging.getLogger("vllm.vtprune")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: a counter, or a level that processes add up."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    is_counter: bool = True

    def add(self, amount: float = 1.0, **labels: str) -> None:
        """Count, from any thread; 0 makes a counter visible before there is anything to count."""
        self._write(lambda before: before + amount, labels)

    def set(self, value: float, **labels: str) -> None:
        """Say what this process holds now."""
        self._write(lambda _: value, labels)

    def _write(self, change: Callable[[float], float], labels: dict[str, str]) -> None:
        if (folder := envs.metrics_folder()) is None:
            return
        values = tuple(labels[label] for label in self.labels)
        with _lock:
            if (file := _file(folder, self._kind, os.getpid())) is not None:
                key = self._key(values)
                file.write_value(key, change(file.read_value(key)[0]), time.time())

    @property
    def _kind(self) -> str:
        """The beginning of a file's name, by which prometheus_client knows what is inside."""
        return "counter" if self.is_counter else "gauge_sum"

    @cache  # noqa: B019  # the metrics are few and live as long as the process
    def _key(self, values: tuple[str, ...]) -> str:
        sample = f"{self.name}_total" if self.is_counter else self.name
        return mmap_key(self.name, sample, list(self.labels), list(values), self.help)


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
KEPT = Metric(
    "vtprune_visual_tokens_kept", "Visual tokens of images and videos after pruning", _BY_METHOD
)
NO_TEXT = Metric("vtprune_no_text", "Images for a method that reads the text, without any")
REFUSALS = Metric("vtprune_refusals", "Requests answered 4xx because of their pruning settings")
METHOD_FAULTS = Metric(
    "vtprune_method_faults", "Requests that a faulty method of another package failed", _BY_METHOD
)
FEATURE_HITS = Metric("vtprune_feature_cache_hits", "Images that skipped the vision tower")
FEATURE_MISSES = Metric("vtprune_feature_cache_misses", "Images that the vision tower encoded")
FEATURE_BYTES = Metric("vtprune_feature_cache_bytes", "Bytes of cached features", is_counter=False)
TOWER_SECONDS = Metric("vtprune_tower_seconds", "Device time of the vision tower")
SELECTION_SECONDS = Metric("vtprune_selection_seconds", "Device time of selection", _BY_METHOD)
PREFILL_SECONDS_SAVED = Metric(
    "vtprune_prefill_seconds_saved",
    "Estimated device time of the prefill that pruning saved",
    _BY_METHOD,
)

_lock = threading.Lock()


def _renew_lock() -> None:
    """Another thread of the parent may hold it at the moment of a fork."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


@cache
def _file(folder: str, kind: str, process: int) -> Any:
    """This process's file of a kind; None if there cannot be one."""
    try:
        return MmapedDict(os.path.join(folder, f"{kind}_vtprune-{process}.db"))  # type: ignore[no-untyped-call]
    except OSError as error:
        logger.warning("vtprune: this process is not counted in /metrics: %s", error)
        return None


def publish() -> None:
    """Make this process, and those that it starts from now on, count for `/metrics`."""
    if (folder := envs.prometheus_folder()) is None:
        folder = _own_folder(os.getpid())
    envs.set_metrics_folder(folder)
    for rare in (NO_TEXT, REFUSALS):
        rare.add(0)  # an alert needs the series before the first event


def totals() -> dict[tuple[str, str], float]:
    """What all processes of this server counted so far, by metric's name and method ("" for those
    that have none); empty if nobody asked for counts."""
    folder = envs.metrics_folder()
    files = sorted(Path(folder).glob("*_vtprune-*.db")) if folder else []
    # A process that is just beginning has an empty file, which the reader cannot take.
    files = [file for file in files if file.stat().st_size]
    merged = MultiProcessCollector.merge([str(file) for file in files])  # type: ignore[no-untyped-call]
    return {
        (metric.name, sample.labels.get("method", "")): sample.value
        for metric in merged
        for sample in metric.samples
    }


@cache
def _own_folder(process: int) -> str:
    """A folder that lasts as long as this process, added to what it shows."""
    folder = tempfile.mkdtemp(prefix="vtprune-metrics-")

    def remove() -> None:
        if os.getpid() == process:  # not in a fork
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    MultiProcessCollector(REGISTRY, folder)  # type: ignore[no-untyped-call]
    return folder
