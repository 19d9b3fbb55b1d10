"""Rotary positions on a CPU, where vLLM has none for two decoders.

For queries `[tokens, heads, size]`, as LFM2's, its operator takes the last dimension for all heads:
it rotates as many rows as a step has tokens, as if each were a token, and leaves the others. What a
query gets depends on the step then. ERNIE-4.5-VL's layer is called with an argument more than it
takes, so that the engine ends.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding
from vllm.model_executor.layers.rotary_embedding.ernie45_vl_rope import Ernie4_5_VLRotaryEmbedding

__all__ = ["rotate_every_head", "rotate_in_time_and_space"]


def rotate_every_head() -> None:
    """Have vLLM's layers give the operator all heads of a token as one row. Before a model is
    made."""
    stock = RotaryEmbedding.forward_cpu

    def rotated(
        self: Any, positions: torch.Tensor, query: torch.Tensor, key: torch.Tensor | None = None
    ) -> Any:
        if query.dim() == 2 or key is None:
            return stock(self, positions, query, key)
        rows = (each.reshape(len(each), -1) for each in (query, key))
        made = stock(self, positions, *rows)
        return tuple(row.view(each.shape) for row, each in zip(made, (query, key), strict=True))

    RotaryEmbedding.forward_cpu = rotated


def rotate_in_time_and_space() -> None:
    """Have ERNIE's layers run on a CPU as they do elsewhere. Before a model is made."""
    layer: Any = Ernie4_5_VLRotaryEmbedding
    layer.forward_cpu = layer.forward_native
