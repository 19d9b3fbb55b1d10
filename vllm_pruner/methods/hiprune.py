"""HiPrune: the tokens a middle layer attends to, their neighbours, then those of the last layer.

Liu et al., "HiPrune: Training-Free Visual Token Pruning via Hierarchical Attention in
Vision-Language Models", ACL 2026, https://arxiv.org/abs/2508.00553 (code MIT, not used here). With
g_l the attention that a token receives in layer l, mean over heads and all queries, and a budget T:

    anchors   = the round(alpha * T / 5) tokens of highest g in the object layer
    buffer    = their four neighbours in the grid, at +-1 and +-columns, clamped to the image
    registers = of all others the tokens of highest g in the layer that produces the features, as
                many as are missing

Deviations from the published code:

- The object layer is at 3/8 of the encoder's depth: the paper's choice for CLIP, the 9th of 24.
- If anchors and neighbours exceed T, anchors go before neighbours, and within each those with more
  attention in the last layer go first.
- Ties go to the lower index.
"""

from __future__ import annotations

import torch
from pydantic import Field
from vtprune_kernels import top_k_sorted

from vllm_pruner.methods.base import Method, Need, Options, VisualTokens
from vllm_pruner.methods.on_device import on_device

__all__ = ["HIPRUNE", "HiPruneOptions"]


class HiPruneOptions(Options):
    """Options of `hiprune`."""

    alpha: float = Field(default=0.1, ge=0.0, le=1.0, allow_inf_nan=False)
    """Share of the budget for anchors and their neighbours. The paper has 0.1."""


def select(tokens: VisualTokens, keep: int, options: HiPruneOptions) -> torch.Tensor:
    """Return `[images, keep]` indices; see `Method.select`."""
    assert tokens.received is not None
    assert tokens.received_midway is not None
    assert tokens.grid is not None
    total = tokens.features.shape[1]
    # 1. Anchors and their neighbours.
    count = min(keep, round(options.alpha * keep / 5))
    anchors = top_k_sorted(tokens.received_midway, count)
    steps = on_device([-1, 1, -tokens.grid[1], tokens.grid[1]], anchors.device)
    around = (anchors[:, :, None] + steps).clamp(0, max(0, total - 1)).flatten(1)
    # 2. Anchors before their neighbours before the rest, within each by the last layer.
    order = torch.zeros_like(tokens.received, dtype=torch.int8)
    order = order.scatter(1, around, 1).scatter(1, anchors, 2)
    by_last = tokens.received.argsort(dim=1, descending=True, stable=True)
    by_order = order.gather(1, by_last).argsort(dim=1, descending=True, stable=True)
    return by_last.gather(1, by_order)[:, :keep].sort(dim=1).values


HIPRUNE = Method(
    "hiprune",
    select,
    HiPruneOptions,
    frozenset({Need.RECEIVED, Need.RECEIVED_MIDWAY, Need.GRID}),
)
