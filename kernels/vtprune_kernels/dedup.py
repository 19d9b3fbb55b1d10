"""VisPruner's iterative removal of near-duplicates, on a Gram matrix.

A list starts as 0..R-1. While it is longer than `keep`, one round

    a = list[0::2], b = list[1::2]                      alternating positions of the current list
    r = min(step, len(list) - keep, len(a))
    q[i] = max_j gram[a[i], b[j]]                       the best match only
    a = a sorted by q descending, ties to the earlier position, without its first r
    list = a followed by b                              re-ordered: the next split depends on it

`r` is bounded by `len(a) = ceil(len(list) / 2)`, where the published routine assumes an even list
and raises otherwise; wherever that routine runs, this one agrees with it. The number of rounds
depends on sizes alone, so there is nothing to ask the device.

Source: VisPruner (arXiv 2412.01818), section 3.2.
"""

from __future__ import annotations

import torch

__all__ = ["dedup"]


def dedup(gram: torch.Tensor, keep: int, step: int = 8) -> torch.Tensor:
    """Return which rows survive the removal.

    Args:
        gram: `[segments, R, R]` float32, similarity of every pair.
        keep: rows to leave in each segment, 0 to R.
        step: rows removed in a round, at least 1.

    Returns:
        `[segments, keep]` int64, ascending.

    Raises:
        ValueError: `keep` or `step` is out of range.
    """
    if not 0 <= keep <= gram.shape[-1]:
        raise ValueError(f"keep is {keep}; allowed: 0 to {gram.shape[-1]}")
    if step < 1:
        raise ValueError(f"step is {step}; allowed: 1 and above")
    return dedup_reference(gram, keep, step)


def dedup_reference(gram: torch.Tensor, keep: int, step: int = 8) -> torch.Tensor:
    """Plain torch: all segments advance together, one round at a time."""
    segments, rows, _ = gram.shape
    flat = gram.flatten(1)
    alive = torch.arange(rows, device=gram.device).expand(segments, rows)
    while (length := alive.shape[1]) > keep:
        a, b = alive[:, 0::2], alive[:, 1::2]
        removed = min(step, length - keep, a.shape[1])
        if b.shape[1] == 0:  # a list of one: nothing to compare it with, and keep is 0
            return alive[:, removed:]
        pairs = (a.unsqueeze(2) * rows + b.unsqueeze(1)).flatten(1)
        best = flat.gather(1, pairs).view(segments, a.shape[1], b.shape[1]).amax(dim=2)
        order = best.argsort(dim=1, descending=True, stable=True)[:, removed:]
        alive = torch.cat([a.gather(1, order), b], dim=1)
    return alive.sort(dim=1).values
