"""Seconds that a device spends on a piece of work, measured without waiting for it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vllm_pruner.metrics import Metric

__all__ = ["Stopwatch"]


class Stopwatch:
    """Adds what it measured to a metric: on a CPU at once, on a GPU when the device has got there.

    On a GPU two events are put beside the work, and looked at when the next piece is measured: one
    that has not happened yet is left for later.
    """

    def __init__(self, metric: Metric, device: torch.device) -> None:
        self.enabled = True
        """False while nothing is to be counted."""
        self._metric = metric
        self._on_gpu = device.type == "cuda"
        self._running: deque[tuple[torch.cuda.Event, torch.cuda.Event, dict[str, str]]] = deque()

    @contextmanager
    def measure(self, **labels: str) -> Iterator[None]:
        """Measure what is done, or put on the current stream, inside."""
        if not self.enabled:
            yield
            return
        if not self._on_gpu:
            before = time.perf_counter()
            yield
            self._metric.add(time.perf_counter() - before, **labels)
            return
        self._collect()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        yield
        end.record()
        self._running.append((start, end, labels))

    def _collect(self) -> None:
        while self._running and self._running[0][1].query():
            start, end, labels = self._running.popleft()
            self._metric.add(1e-3 * start.elapsed_time(end), **labels)
