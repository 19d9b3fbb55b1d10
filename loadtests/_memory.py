"""The unshared memory of a server and all its processes, over time."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence

import psutil

__all__ = ["MemoryWatch"]

Sample = tuple[float, float]
"""Seconds since the start, and MB."""

_CALLED = {"VLLM::EngineCore": "engine", "VLLM::Worker": "worker"}
"""vLLM's names of its processes; the process that was started is the API server."""


class MemoryWatch:
    """A context manager that samples memory in a thread. It counts memory that is not shared with
    other processes (USS), so that no page is counted twice."""

    def __init__(self, pid: int, every: float = 2.0) -> None:
        self.samples: list[Sample] = []
        self._by_process: list[dict[str, float]] = []
        self._root, self._every = psutil.Process(pid), every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._start = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            held = self._megabytes()
            self.samples.append((time.monotonic() - self._start, sum(held.values())))
            self._by_process.append(held)

    def _megabytes(self) -> dict[str, float]:
        held: dict[str, float] = {}
        for process in [self._root, *self._root.children(recursive=True)]:
            try:
                name, uss = process.name(), process.memory_full_info().uss
            except psutil.NoSuchProcess:  # a compiler, for instance
                continue
            name = "API server" if process == self._root else _CALLED.get(name, "other")
            held[name] = held.get(name, 0) + uss / 2**20
        return held

    def growth_by_process(self) -> dict[str, float]:
        """Return how many MB the last quarter's median is above the first's, by kind of process."""
        size = len(self._by_process) // 4
        names = {name for held in self._by_process for name in held}
        first, last = self._by_process[:size], self._by_process[-size:]
        return {
            name: statistics.median(held.get(name, 0) for held in last)
            - statistics.median(held.get(name, 0) for held in first)
            for name in sorted(names)
        }

    def quarter(self, which: int) -> float:
        """Return the median MB in one quarter of the time; `which` counts from 0."""
        size = len(self.samples) // 4
        return statistics.median(mb for _, mb in self.samples[which * size :][:size])

    def growth_per_minute(self) -> float:
        """Return the growth in MB per minute over the second half, by least squares."""
        return 60 * _slope(self.samples[len(self.samples) // 2 :])


def _slope(samples: Sequence[Sample]) -> float:
    times, sizes = zip(*samples, strict=True)
    return statistics.linear_regression(times, sizes).slope
