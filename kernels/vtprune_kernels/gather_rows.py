"""Rows of each segment by index, for several tensors at once.

The projector reads the result, so it works on the kept tokens only.
"""

from __future__ import annotations

import torch

__all__ = ["gather_rows"]


def gather_rows(tensors: list[torch.Tensor], kept: torch.Tensor) -> list[torch.Tensor]:
    """Return `tensor[s, kept[s]]` for every tensor and segment.

    Args:
        tensors: each `[segments, N, ...]`, any dtype; trailing shapes may differ.
        kept: `[segments, k]` int64, each in 0..N-1.

    Returns:
        One contiguous `[segments, k, ...]` for each tensor, in order.
    """
    return gather_rows_reference(tensors, kept)


def gather_rows_reference(tensors: list[torch.Tensor], kept: torch.Tensor) -> list[torch.Tensor]:
    """Plain torch: one flat `index_select` a tensor."""
    segments, k = kept.shape
    gathered = []
    for tensor in tensors:
        starts = torch.arange(segments, device=kept.device).unsqueeze(1) * tensor.shape[1]
        rows = tensor.flatten(0, 1).index_select(0, (kept + starts).flatten())
        gathered.append(rows.unflatten(0, (segments, k)))
    return gathered
