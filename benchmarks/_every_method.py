"""Time the selection of every installed method, on one tower's tensors."""

from __future__ import annotations

import statistics
import time
from math import isqrt
from typing import Any

import torch
from vtprune_kernels import cls_importance, column_importance

from vllm_pruner import methods
from vllm_pruner.methods.base import Need, VisualTokens

__all__ = ["time_methods"]

_WORDS, _DECODER = 24, 4096


def time_methods(
    features: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    keep: int,
    heads: int,
    rounds: int,
) -> dict[str, float]:
    """Return the median milliseconds of `Method.select`, by name; the methods take turns.

    Args:
        features: `[images, 1 + N, width]` with the class token.
        query: `[images, 1 + N, width]` of the layer that produced the features, which also serves
            as the middle layer that `hiprune` reads.
        key: the same layer's key, of the same shape.
        keep: tokens kept of N.
        heads: the tower's number of heads.
        rounds: timed calls of each method, after one to warm up.
    """
    tokens = _tokens(features, query, key, heads)
    chosen = {name: methods.get(name) for name in methods.names()}
    # `resize` selects nothing: it shortens the tower's time instead.
    timed = {name: method for name, method in chosen.items() if method.shrink is None}
    times: dict[str, list[float]] = {name: [] for name in timed}
    for turn in range(rounds + 1):
        for name, method in timed.items():
            start = time.perf_counter()
            method.select(tokens, keep, method.options())
            if turn:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def _tokens(
    features: torch.Tensor, query: torch.Tensor, key: torch.Tensor, heads: int
) -> VisualTokens:
    """Return tokens with all inputs that a method may need."""
    images, patches = features.shape[0], features.shape[1] - 1
    scale = (features.shape[2] // heads) ** -0.5
    received = column_importance(query, key, heads, scale)[:, 1:]
    side = isqrt(patches)
    fields: dict[str, Any] = {
        Need.IMPORTANCE: cls_importance(query, key, heads, scale),
        Need.KEYS: key.unflatten(2, (heads, -1)).float().mean(dim=2)[:, 1:],
        Need.RECEIVED: received,
        Need.RECEIVED_MIDWAY: received.flip(1),
        Need.PROJECTED: torch.randn(images, patches, _DECODER, dtype=features.dtype),
        Need.TEXT: list(torch.randn(images, _WORDS, _DECODER, dtype=features.dtype)),
        Need.GRID: (side, side),
    }
    return VisualTokens(features[:, 1:], **fields)
