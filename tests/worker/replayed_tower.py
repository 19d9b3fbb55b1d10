"""vLLM's own manager of a tower's CUDA graphs, with graphs that a CPU can run: a graph is the
forward, run again on the buffers that it was captured with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from vllm.v1.worker import encoder_cudagraph
from vllm.v1.worker.encoder_cudagraph import EncoderCudaGraphManager

__all__ = ["CPU", "Again", "captured", "replayed_rows"]

CPU = torch.device("cpu")


class Again:
    """Stands for a `torch.cuda.CUDAGraph`: replays a forward on its own buffers."""

    def __init__(self) -> None:
        self.forward: Callable[[], torch.Tensor] | None = None
        self.output: torch.Tensor | None = None

    def replay(self) -> None:
        assert self.forward is not None and self.output is not None
        self.output.copy_(self.forward())


def captured(config: Any, model: Any) -> EncoderCudaGraphManager:
    """Return vLLM's manager with a graph of every budget, as its own `capture` leaves it."""
    manager = EncoderCudaGraphManager(config, CPU, config.model_config.dtype, model)

    def capture(token_budget: int, path: str = "default", axis_keys: Any = ()) -> None:
        values = model.prepare_encoder_cudagraph_capture_inputs(
            token_budget, manager.max_batch_size, manager.max_frames_per_batch, CPU, manager.dtype
        ).values
        graph = Again()
        graph.forward = lambda: model.encoder_cudagraph_forward({**values}, path=path)
        graph.output = torch.full_like(graph.forward(), torch.nan)
        manager._get_graph_set(path)[token_budget] = encoder_cudagraph.BudgetGraphMetadata(
            token_budget, manager.max_batch_size, 0, graph, values, graph.output
        )

    manager._capture_budget_graph = capture
    manager.capture(graph_pool=object())
    return manager


def replayed_rows(monkeypatch: pytest.MonkeyPatch, model: Any, manager: Any) -> list[int]:
    """A list that gets the rows of each graph that the model replays from now on."""
    rows: list[int] = []
    replay = Again.replay

    def noted(graph: Again) -> None:
        assert graph.output is not None
        rows.append(len(graph.output))
        replay(graph)

    monkeypatch.setattr(Again, "replay", noted)
    model.graphs_captured(manager, 0.0, 0)
    rows.clear()  # of what each graph was held against
    return rows
