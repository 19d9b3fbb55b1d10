"""vLLM's own manager of a tower's CUDA graphs, with graphs that a CPU can run: a graph is the
forward, run again on the buffers that it was captured with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from vllm.model_executor.layers.attention import mm_encoder_attention
from vllm.v1.worker import encoder_cudagraph
from vllm.v1.worker.encoder_cudagraph import EncoderCudaGraphManager

__all__ = ["CPU", "Again", "attention_beside_padding", "captured", "replayed_rows"]

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
    """Return vLLM's manager with a graph of every budget, as its own `capture` leaves it; so has
    the one that the model captures beside it."""
    manager = EncoderCudaGraphManager(config, CPU, config.model_config.dtype, model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EncoderCudaGraphManager, "_capture_budget_graph", _capture)
        manager.capture(graph_pool=object())
    return manager


def _capture(manager: Any, budget: int, path: str = "default", axis_keys: Any = ()) -> None:
    model, sizes = manager.model, (manager.max_batch_size, manager.max_frames_per_batch)
    make = model.prepare_encoder_cudagraph_capture_inputs
    more = (path, axis_keys) if axis_keys else ()
    values = make(budget, *sizes, CPU, manager.dtype, *more).values
    graph = Again()
    graph.forward = lambda: model.encoder_cudagraph_forward({**values}, path=path)
    graph.output = torch.full_like(graph.forward(), torch.nan)
    key = (budget, axis_keys) if axis_keys else budget
    manager._get_graph_set(path)[key] = encoder_cudagraph.BudgetGraphMetadata(
        budget,
        *sizes,
        graph,
        values,
        graph.output,
        **({"axis_keys": axis_keys} if axis_keys else {}),
    )


def attention_beside_padding() -> Iterator[None]:
    """A fixture: vLLM's attention for CPUs splits all rows into images, and there may be padding
    behind them. A GPU's leaves that alone; here it holds any number."""
    stock = mm_encoder_attention.vit_torch_sdpa_wrapper

    def attention(
        q: Any, k: Any, v: Any, scale: Any = None, cu_seqlens: Any = None, enable_gqa: Any = False
    ) -> Any:
        end = q.shape[1] if cu_seqlens is None else int(cu_seqlens[-1])
        rows = stock(q[:, :end], k[:, :end], v[:, :end], scale, cu_seqlens, enable_gqa)
        return torch.cat([rows, q[:, end:] * 0 + 3], dim=1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mm_encoder_attention, "vit_torch_sdpa_wrapper", attention)
        yield


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
