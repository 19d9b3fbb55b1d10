"""Simulated time, and an API server on it."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["Clock", "Lane"]

_Task = list[Any]


class Clock:
    """Runs events in the order of their simulated times, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Schedule a call, so many seconds from now."""
        heapq.heappush(self._events, (self.now + seconds, next(self._order), what))

    def run(self) -> None:
        """Run events until none is left."""
        while self._events:
            self.now, _, what = heapq.heappop(self._events)
            what()


class Lane:
    """An API server: one core, shared by a thread that prepares pictures and the event loop, which
    does all else.

    Each does one task at a time, first come, first served. While both have tasks, each runs at half
    speed.
    """

    def __init__(self, clock: Clock) -> None:
        self.busy = 0.0
        """Total seconds of all tasks so far."""
        self._clock = clock
        self._threads: tuple[deque[_Task], deque[_Task]] = (deque(), deque())
        self._since = 0.0
        self._turn = 0

    def prepare(self, seconds: float, then: Callable[[], None]) -> None:
        """Queue pictures for the thread, and call `then` when they are prepared."""
        self._begin(0, seconds, then)

    def add(self, seconds: float, then: Callable[[], None]) -> None:
        """Queue a task for the loop, and call `then` when it is done."""
        self._begin(1, seconds, then)

    def _begin(self, thread: int, seconds: float, then: Callable[[], None]) -> None:
        self._advance()
        self.busy += seconds
        self._threads[thread].append([seconds, then])
        self._await_next()

    def _heads(self) -> list[_Task]:
        return [tasks[0] for tasks in self._threads if tasks]

    def _advance(self) -> None:
        heads = self._heads()
        for head in heads:
            head[0] -= (self._clock.now - self._since) / len(heads)
        self._since = self._clock.now

    def _await_next(self) -> None:
        """Schedule the end of the task that ends first; a task that begins earlier cancels this."""
        self._turn += 1
        if heads := self._heads():
            left = max(0.0, min(head[0] for head in heads)) * len(heads)
            turn = self._turn
            self._clock.after(left, lambda: self._end(turn))

    def _end(self, turn: int) -> None:
        if turn != self._turn:
            return
        self._advance()
        tasks = min((t for t in self._threads if t), key=lambda t: t[0][0])
        _, then = tasks.popleft()
        then()
        self._await_next()
