"""One metric of one process, stored in a memory-mapped file of that process.

prometheus_client reads the files; `metrics` explains how they are added up. Counting writes a few
machine words: no message, no lock between processes, no device sync.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from math import inf
from operator import add
from typing import Any

from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.utils import floatToGoString

from vllm_pruner import envs

__all__ = ["Histogram", "Metric", "set_engine", "set_model"]

logger = logging.getLogger("vllm.vtprune")


@dataclass(frozen=True, slots=True)
class Metric:
    """A counter or a gauge."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    kind: str = "counter"
    """`counter`, `gauge_sum` (summed over processes) or `gauge_all` (one series a process): the
    prefix of the file's name, which tells prometheus_client the type."""

    of_engine: bool = False
    """Whether it is counted in an engine's process; it then also has vLLM's label `engine`."""

    @property
    def is_counter(self) -> bool:
        """Whether it only grows."""
        return self.kind == "counter"

    def add(self, amount: float = 1.0, **labels: str) -> None:
        """Add `amount`. Thread-safe. Adding 0 makes a series visible before its first event."""
        self._write(lambda before: before + amount, labels)

    def set(self, value: float, **labels: str) -> None:
        """Set this process's value. Thread-safe."""
        self._write(lambda _: value, labels)

    def _write(self, change: Callable[[float], float], labels: dict[str, str]) -> None:
        values = tuple(labels[each] for each in self.labels)
        _write(self.kind, self._key(values, _where(self.of_engine)), change)

    @cache  # noqa: B019  # the metrics are few and live as long as the process
    def _key(self, values: tuple[str, ...], where: tuple[tuple[str, str], ...]) -> str:
        sample = f"{self.name}_total" if self.is_counter else self.name
        names, shown = _labelled(self.labels, values, where)
        return mmap_key(self.name, sample, names, shown, self.help)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts non-negative numbers by range."""

    name: str
    help: str
    bounds: tuple[float, ...]
    """The inclusive upper bound of each range, ascending; a last range without bound is added."""

    labels: tuple[str, ...] = ()

    def observe(self, value: float, **labels: str) -> None:
        """Count one number. Thread-safe."""
        values, where = tuple(labels[label] for label in self.labels), _where()
        range_of = bisect_left(self.bounds, value)
        for place, bound in enumerate((*self.bounds, inf)):  # quantiles need empty ranges too
            more = float(place == range_of)
            _write("histogram", self._key("bucket", values, where, bound), partial(add, more))
        _write("histogram", self._key("sum", values, where), partial(add, value))

    @cache  # noqa: B019  # as above
    def _key(
        self,
        part: str,
        values: tuple[str, ...],
        where: tuple[tuple[str, str], ...],
        bound: float | None = None,
    ) -> str:
        le = () if bound is None else (("le", floatToGoString(bound)),)  # type: ignore[no-untyped-call]
        names, shown = _labelled(self.labels, values, where + le)
        return mmap_key(self.name, f"{self.name}_{part}", names, shown, self.help)


_engine = "0"
_model = ""


def set_engine(index: int) -> None:
    """Set the index of the data-parallel engine that this process belongs to."""
    global _engine
    _engine = str(index)


def set_model(name: str) -> None:
    """Set the name under which this process serves its model: vLLM's label `model_name`, which all
    metrics of this process have from now on."""
    global _model
    _model = name


def _where(of_engine: bool = False) -> tuple[tuple[str, str], ...]:
    """Return vLLM's labels of this process, and their values."""
    model = (("model_name", _model),) if _model else ()
    return (*model, ("engine", _engine)) if of_engine else model


def _labelled(
    labels: tuple[str, ...], values: tuple[str, ...], more: tuple[tuple[str, str], ...]
) -> tuple[list[str], list[str]]:
    """Return the names and the values of all labels."""
    return [*labels, *(name for name, _ in more)], [*values, *(value for _, value in more)]


def _write(kind: str, key: str, change: Callable[[float], float]) -> None:
    if (folder := envs.metrics_folder()) is None:
        return
    with _lock:
        if (file := _file(folder, kind, os.getpid())) is not None:
            file.write_value(key, change(file.read_value(key)[0]), time.time())


_lock = threading.Lock()


def _renew_lock() -> None:
    """Replace the lock in a forked child: a thread of the parent may have held it."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


@cache
def _file(folder: str, kind: str, process: int) -> Any:
    """Return this process's file for a type of metric; None if it cannot be created."""
    try:
        return MmapedDict(os.path.join(folder, f"{kind}_vtprune-{process}.db"))  # type: ignore[no-untyped-call]
    except OSError as error:
        logger.warning("vtprune: this process is not counted in /metrics: %s", error)
        return None
