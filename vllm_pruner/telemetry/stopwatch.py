"""Measure the seconds that a device spends on some work, without a host sync."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vllm_pruner.telemetry.metrics import Metric

__all__ = ["Stopwatch"]

_Running = tuple[torch.cuda.Event, torch.cuda.Event, int, dict[str, str]]


class Stopwatch:
    """Adds what it measures to a metric: on a CPU at once, on a GPU once the device is done.

    On a GPU, events are recorded before and after the work and polled when the next piece of work
    is measured; work still in progress stays queued.
    """

    def __init__(self, metric: Metric, device: torch.device) -> None:
        self.enabled = True
        """False while nothing is to be measured."""
        self._metric = metric
        self._on_gpu = device.type == "cuda"
        self._running: deque[_Running] = deque()
        self._seconds, self._pieces = 0.0, 0

    @contextmanager
    def measure(self, pieces: int = 1, **labels: str) -> Iterator[None]:
        """Measure the work done in the block, or enqueued there on the current stream.

        Args:
            pieces: how many equal pieces the work consists of, for `seconds_per_piece`.
            labels: the metric's labels.
        """
        if not self.enabled:
            yield
            return
        if not self._on_gpu:
            before = time.perf_counter()
            yield
            self._add(time.perf_counter() - before, pieces, labels)
            return
        self._collect()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        yield
        end.record()
        self._running.append((start, end, pieces, labels))

    def _collect(self) -> None:
        while self._running and self._running[0][1].query():
            start, end, pieces, labels = self._running.popleft()
            self._add(1e-3 * start.elapsed_time(end), pieces, labels)

    def _add(self, seconds: float, pieces: int, labels: dict[str, str]) -> None:
        self._seconds += seconds
        self._pieces += pieces
        self._metric.add(seconds, **labels)

    @property
    def seconds_per_piece(self) -> float | None:
        """Mean over everything measured so far; None if nothing was."""
        return self._seconds / self._pieces if self._pieces else None
