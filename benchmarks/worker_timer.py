"""A vLLM worker extension for benchmarks: seconds spent in the tower, selection and projector.

Loaded by `--worker-extension-cls`; the product knows nothing of it. On a GPU it would make the
host wait, so it is for the CPU benchmark.
"""

from __future__ import annotations

import time
from typing import Any


class WorkerTimer:
    """Methods that vLLM adds to its worker; called by `/collective_rpc`."""

    def start_timer(self) -> dict[str, float]:
        """Begin counting from zero."""
        model: Any = self.get_model()  # type: ignore[attr-defined]
        if not hasattr(model, "_timer_seconds"):
            _install(model)
        model._timer_seconds.update(dict.fromkeys(model._timer_seconds, 0.0))
        return {}

    def read_timer(self) -> dict[str, float]:
        """Return the seconds since `start_timer`, by part."""
        seconds: dict[str, float] = self.get_model()._timer_seconds  # type: ignore[attr-defined]
        return seconds


def _install(model: Any) -> None:
    seconds = {"tower": 0.0, "select": 0.0, "project": 0.0, "embed_multimodal": 0.0}
    model._timer_seconds = seconds

    def timed(part: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[part] += time.perf_counter() - start

        return call

    model.vision_tower.forward = timed("tower", model.vision_tower.forward)
    model.multi_modal_projector.forward = timed("project", model.multi_modal_projector.forward)
    model._select = timed("select", model._select)
    model.embed_multimodal = timed("embed_multimodal", model.embed_multimodal)
