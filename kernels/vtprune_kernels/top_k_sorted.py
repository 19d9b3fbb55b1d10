"""The k highest scores of each row, as ascending indices.

Exactly k, ties to the lower index, NaN above every number, no host synchronisation: what
`torch.topk` does not promise about ties, a stable sort does.
"""

from __future__ import annotations

from typing import Any

import torch

from vtprune_kernels._triton import register_op, use_triton
from vtprune_kernels.spec import EXACT, Spec, features
from vtprune_kernels.top_k_sorted_triton import top_k_sorted_triton

__all__ = ["SPEC", "top_k_sorted"]

_MOST_SCORES = 16384
"""Longest row for the kernel: 32 scores a thread of 16 warps. Longer ones go to the reference."""

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def top_k_sorted(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Return the indices of the `k` highest scores of each row, ascending.

    Args:
        scores: `[rows, N]`, any float dtype.
        k: how many, 0 to N.

    Returns:
        `[rows, k]` int64, ascending within a row.

    Raises:
        ValueError: `k` is outside 0..N.
    """
    if not 0 <= k <= scores.shape[-1]:
        raise ValueError(f"k is {k}; allowed: 0 to {scores.shape[-1]}")
    fits = scores.shape[-1] <= _MOST_SCORES and scores.dtype in _DTYPES and scores.ndim == 2
    if fits and use_triton(scores):
        return _top_k_sorted_op(scores, k)
    return top_k_sorted_reference(scores, k)


def top_k_sorted_reference(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Plain torch: one stable sort by score, one sort by index."""
    order = scores.argsort(dim=-1, descending=True, stable=True)
    return order[..., :k].sort(dim=-1).values


def _top_k_sorted_fake(scores: torch.Tensor, k: int) -> torch.Tensor:
    return scores.new_empty((scores.shape[0], k), dtype=torch.int64)


_top_k_sorted_op = register_op(
    "top_k_sorted(Tensor scores, int k) -> Tensor",
    top_k_sorted_triton,
    top_k_sorted_reference,
    _top_k_sorted_fake,
)


def _make_inputs(
    kind: str, size: int, dtype: torch.dtype, device: torch.device | str, large: bool = False
) -> dict[str, Any]:
    scores = features(kind, (64 if large else 3, size), dtype, device)
    return {"scores": scores, "k": max(1, size // 9)}


SPEC = Spec(
    name="top_k_sorted",
    op=top_k_sorted,
    reference=top_k_sorted_reference,
    launcher=top_k_sorted_triton,
    registered=_top_k_sorted_op,
    make_inputs=_make_inputs,
    # Comparisons only.
    tolerance={torch.float32: EXACT, torch.float16: EXACT, torch.bfloat16: EXACT},
)
