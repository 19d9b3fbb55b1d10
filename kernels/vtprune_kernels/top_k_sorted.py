"""The k highest scores of each row, as ascending indices.

Exactly k, ties to the lower index, NaN above every number, no host synchronisation. `torch.topk`
promises nothing about ties; a stable sort does.
"""

from __future__ import annotations

from typing import Any

import torch

from vtprune_kernels._triton import register_op, use_triton
from vtprune_kernels.segments import ABSENT, kept_of
from vtprune_kernels.spec import EXACT, Spec, features
from vtprune_kernels.top_k_sorted_triton import top_k_sorted_triton

__all__ = ["SPECS", "top_k_sorted"]

_MOST_SCORES = 16384
"""Longest row for the kernel: 32 scores a thread of 16 warps. Longer ones go to the reference."""

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def top_k_sorted(
    scores: torch.Tensor,
    k: int,
    valid: torch.Tensor | None = None,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the indices of the `k` highest scores of each row, ascending.

    Args:
        scores: `[segments, N]`, any float dtype.
        k: how many, 0 to N.
        valid: `[segments, N]` bool, scores that may be chosen; see `segments`.
        counts: `[segments]` integers, how many of the k each segment keeps; see `segments`.

    Returns:
        `[segments, k]` int64, ascending within a segment, with -1 at the end where it keeps fewer.

    Raises:
        ValueError: `k` is outside 0..N.
    """
    if not 0 <= k <= scores.shape[-1]:
        raise ValueError(f"k is {k}; allowed: 0 to {scores.shape[-1]}")
    fits = scores.shape[-1] <= _MOST_SCORES and scores.dtype in _DTYPES and scores.ndim == 2
    if fits and use_triton(scores):
        return _top_k_sorted_op(scores, k, valid, counts)
    return top_k_sorted_reference(scores, k, valid, counts)


def top_k_sorted_reference(
    scores: torch.Tensor,
    k: int,
    valid: torch.Tensor | None = None,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Plain torch: one stable sort by score, one sort by index."""
    order = scores.argsort(dim=-1, descending=True, stable=True)
    if valid is None and counts is None:
        return order[..., :k].sort(dim=-1).values
    if valid is not None:  # a second stable sort brings what exists to the front
        padding = (~valid).gather(1, order).to(torch.int8)
        order = order.gather(1, padding.argsort(dim=1, stable=True))
    number = kept_of(k, len(scores), valid, counts).unsqueeze(1)
    past_the_end = scores.shape[1]
    kept = order[:, :k].where(torch.arange(k, device=scores.device) < number, past_the_end)
    kept = kept.sort(dim=1).values
    return kept.masked_fill(kept == past_the_end, ABSENT)


def _top_k_sorted_fake(
    scores: torch.Tensor,
    k: int,
    valid: torch.Tensor | None = None,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    return scores.new_empty((scores.shape[0], k), dtype=torch.int64)


_top_k_sorted_op = register_op(
    "top_k_sorted",
    top_k_sorted_triton,
    top_k_sorted_reference,
    _top_k_sorted_fake,
)


def _make_inputs(
    kind: str, size: int, dtype: torch.dtype, device: torch.device | str, large: bool = False
) -> dict[str, Any]:
    scores = features(kind, (64 if large else 3, size), dtype, device)
    return {"scores": scores, "k": max(1, size // 9)}


SPECS = (
    Spec(
        name="top_k_sorted",
        op=top_k_sorted,
        reference=top_k_sorted_reference,
        launcher=top_k_sorted_triton,
        registered=_top_k_sorted_op,
        make_inputs=_make_inputs,
        # Comparisons only.
        tolerance={torch.float32: EXACT, torch.float16: EXACT, torch.bfloat16: EXACT},
    ),
)
