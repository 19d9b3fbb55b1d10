"""The published VisPruner routine, transcribed, as a baseline for timing `vispruner`.

Written from the description in the paper (arXiv 2412.01818), with the steps of the authors' routine
and their costs: a full attention map of which one row is used, and a gather and a GEMM of encoder
width in every round of removal. Images of a batch advance in lock-step. One deviation: lists of odd
length are allowed, as in `vtprune_kernels.dedup`.

Only one layer's map is computed; the authors' code asks the tower for the maps of all layers.
"""

from __future__ import annotations

import torch

__all__ = ["importance", "select"]


def importance(
    query: torch.Tensor, key: torch.Tensor, num_heads: int, scale: float
) -> torch.Tensor:
    """Return the class row of the mean attention map, `[images, N]`, from `[images, 1 + N, D]`."""
    images, tokens, _ = query.shape
    queries = query.view(images, tokens, num_heads, -1).transpose(1, 2)
    keys = key.view(images, tokens, num_heads, -1).transpose(1, 2)
    attention = (queries * scale @ keys.mT).softmax(dim=-1)
    return attention.mean(dim=1)[:, 0, 1:]


def select(
    features: torch.Tensor,
    scores: torch.Tensor,
    keep: int,
    important_ratio: float = 0.5,
    step: int = 8,
) -> torch.Tensor:
    """Return the kept indices `[images, keep]`, ascending, of features `[images, N, D]`."""
    images, tokens, _ = features.shape
    important = int(keep * important_ratio)
    diverse = keep - important
    order = scores.argsort(dim=-1, descending=True, stable=True)
    kept, residual = order[:, :important], order[:, important:]
    normalised = features / features.norm(dim=-1, keepdim=True)
    image = torch.arange(images, device=features.device).unsqueeze(1)
    while diverse > 0:
        length = residual.shape[1]
        removed = min(step, length - diverse, (length + 1) // 2)
        if removed <= 0:
            break
        rows = normalised[image, residual]
        a, b = rows[:, 0::2], rows[:, 1::2]
        best = (a @ b.mT).max(dim=-1).values
        distinct = best.argsort(dim=-1, descending=True, stable=True)[:, removed:]
        residual = torch.cat([residual[:, 0::2][image, distinct], residual[:, 1::2]], dim=-1)
    if diverse:
        kept = torch.cat([kept, residual], dim=-1)
    mask = torch.zeros(images, tokens, dtype=torch.bool, device=features.device)
    mask.scatter_(1, kept, True)
    return mask.nonzero()[:, 1].view(images, keep)
