"""How long the steps of a benchmark take on the host."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Clock"]


class Clock:
    """Milliseconds of named steps."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.times[name].append(1e3 * (time.perf_counter() - start))

    def median(self, name: str) -> float:
        return statistics.median(self.times[name])
