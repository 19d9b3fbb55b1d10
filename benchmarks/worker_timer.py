"""A vLLM worker extension for benchmarks: times the tower, selection and projector.

Loaded by `--worker-extension-cls`; vtprune itself does not use it. On a GPU it records events
around each part and reads them afterwards, without host syncs: it measures time on the stream.
"""

from __future__ import annotations

import time
from typing import Any

import torch


class WorkerTimer:
    """Methods that vLLM adds to its worker, called through `/collective_rpc`."""

    def start_timer(self) -> dict[str, float]:
        """Start timing from zero."""
        model: Any = self.get_model()  # type: ignore[attr-defined]
        if not hasattr(model, "_timer_spans"):
            _install(model)
        for spans in model._timer_spans.values():
            spans.clear()
        return {}

    def read_timer(self) -> dict[str, float]:
        """Return the seconds since `start_timer`, by part."""
        spans: dict[str, list[Any]] = self.get_model()._timer_spans  # type: ignore[attr-defined]
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return {part: sum(_seconds(*span) for span in each) for part, each in spans.items()}


def _now() -> Any:
    if not torch.cuda.is_available():
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _seconds(start: Any, end: Any) -> float:
    return end - start if isinstance(end, float) else 1e-3 * float(start.elapsed_time(end))


def _tower(model: Any) -> torch.nn.Module:
    """Return the tower of a pruned model, or of vLLM's own LLaVA or Qwen-VL."""
    if hasattr(model, "tower"):
        found = model.tower.module
    else:
        found = model.visual if hasattr(model, "visual") else model.vision_tower
    assert isinstance(found, torch.nn.Module)
    return found


def _install(model: Any) -> None:
    spans: dict[str, list[Any]] = {}
    model._timer_spans = spans

    def timed(part: str, function: Any) -> Any:
        spans[part] = []

        def call(*args: Any, **kwargs: Any) -> Any:
            start = _now()
            try:
                return function(*args, **kwargs)
            finally:
                spans[part].append((start, _now()))

        return call

    tower = _tower(model)
    tower.forward = timed("tower", tower.forward)
    graphs = getattr(getattr(model, "_encoder", None), "graphs", None)
    if graphs is not None:  # which call no `forward`
        graphs.encode = timed("tower graphs", graphs.encode)
    if hasattr(model, "_selector"):  # stock has none
        model._selector.select = timed("select", model._selector.select)
    projector = getattr(model, "multi_modal_projector", None)  # Qwen-VL's merges inside the tower
    if projector is not None:
        projector.forward = timed("project", projector.forward)
    model.embed_multimodal = timed("embed_multimodal", model.embed_multimodal)
