"""The k highest scores of each row, as ascending indices.

Exactly k, ties to the lower index, NaN above every number, no host synchronisation: what
`torch.topk` does not promise about ties, a stable sort does.
"""

from __future__ import annotations

import torch

__all__ = ["top_k_sorted"]


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
    return top_k_sorted_reference(scores, k)


def top_k_sorted_reference(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Plain torch: one stable sort by score, one sort by index."""
    order = scores.argsort(dim=-1, descending=True, stable=True)
    return order[..., :k].sort(dim=-1).values
