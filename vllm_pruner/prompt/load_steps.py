"""Which step of the rates a server's load asks for: up at once, down when it has been calm.

A higher rate empties the queue that called for it, and would fall again with the queue; so what
takes it down is a lower load than what brings it up, and for longer.
"""

from __future__ import annotations

from typing import Final

from vllm_pruner.settings.load import Load
from vllm_pruner.telemetry.engine_load import EngineLoad

__all__ = ["LoadSteps"]

_UP: Final = 0.5
"""Seconds between two steps up: what the first one does has to be seen."""

_CALM: Final = 0.25
"""Of the requests that wait when the rate goes up, as many are calm."""

_ROOM: Final = 0.2
"""Of the KV cache, so much less in use than when the rate goes up is calm."""


class LoadSteps:
    """Of one process."""

    def __init__(self, load: Load, most: int) -> None:
        """Begin at step 0; `most` is the last one."""
        self._load, self._most = load, most
        self._step = 0
        self._raised = float("-inf")
        self._calm_since: float | None = None

    def step(self, load: EngineLoad, now: float) -> int:
        """Return the step for a load.

        Between two looks that are calm it has been calm: a process looks for every request, so
        there was none.

        Args:
            load: as it is.
            now: monotonic seconds, not before those of the last call.
        """
        if self._is_pressed(load):
            self._calm_since = None
            if now - self._raised >= _UP:
                self._step, self._raised = min(self._step + 1, self._most), now
        elif not self._is_calm(load):
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now
        else:
            steps = int((now - self._calm_since) / self._load.seconds)
            self._step = max(self._step - steps, 0)
            self._calm_since += steps * self._load.seconds
        return self._step

    def _is_pressed(self, load: EngineLoad) -> bool:
        wait = load.waiting >= self._load.waiting * load.engines
        return wait or load.kv_cache >= self._load.kv_cache

    def _is_calm(self, load: EngineLoad) -> bool:
        wait = load.waiting > _CALM * self._load.waiting * load.engines
        return not wait and load.kv_cache < self._load.kv_cache - _ROOM
