"""Memory that a server and all its processes hold for themselves, over time."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence

import psutil

__all__ = ["MemoryWatch"]

Sample = tuple[float, float]
"""Seconds since the start, and MB."""


class MemoryWatch:
    """Samples in a thread while it is entered. Counted is what no other process shares (USS), so
    that one page is not counted twice."""

    def __init__(self, pid: int, every: float = 2.0) -> None:
        self.samples: list[Sample] = []
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
            self.samples.append((time.monotonic() - self._start, self._megabytes()))

    def _megabytes(self) -> float:
        total = 0
        for process in [self._root, *self._root.children(recursive=True)]:
            try:
                total += process.memory_full_info().uss
            except psutil.NoSuchProcess:  # a compiler, for instance
                continue
        return total / 2**20

    def quarter(self, which: int) -> float:
        """Median MB of one quarter of the time, counted from 0."""
        size = len(self.samples) // 4
        return statistics.median(mb for _, mb in self.samples[which * size :][:size])

    def growth_per_minute(self) -> float:
        """MB per minute over the second half, by least squares."""
        return 60 * _slope(self.samples[len(self.samples) // 2 :])


def _slope(samples: Sequence[Sample]) -> float:
    times, sizes = zip(*samples, strict=True)
    return statistics.linear_regression(times, sizes).slope
