"""Attention: keep the tokens that the encoder attends to most.

Known as FasterVLM: Zhang et al., "[CLS] Attention is All You Need for Training-Free Visual Token
Pruning", https://arxiv.org/abs/2412.01818v1 (code Apache-2.0, not used here). It is VisPruner with
an important ratio of 1, and its baseline.

    keep = the T tokens of highest importance, ties to the lower index, in raster order
"""

from __future__ import annotations

import torch
from vtprune_kernels import top_k_sorted

from vllm_pruner.methods.base import Method, Need, Options, VisualTokens

__all__ = ["ATTENTION"]


def select(tokens: VisualTokens, keep: int, options: Options) -> torch.Tensor:
    """Return `[images, keep]` indices; see `Method.select`."""
    assert tokens.importance is not None
    if (ragged := tokens.ragged) is None:
        return top_k_sorted(tokens.importance, keep)
    valid = ragged.valid(tokens.importance.shape[1])
    return top_k_sorted(tokens.importance, keep, valid, ragged.keeps)


ATTENTION = Method("attention", select, needs=frozenset({Need.IMPORTANCE}), ragged=True)
