"""Uniform: every N/T-th token in raster order, whatever the image shows.

The content-free baseline that every method has to beat:

    keep = floor((i + 1/2) * N / T),  i = 0..T-1
"""

from __future__ import annotations

import torch

from vllm_pruner.methods.base import Method, Options, VisualTokens

__all__ = ["UNIFORM"]


def select(tokens: VisualTokens, keep: int, options: Options) -> torch.Tensor:
    """Return `[images, keep]` indices; see `Method.select`."""
    images, total, _ = tokens.features.shape
    index = torch.arange(keep, device=tokens.features.device)
    kept = (2 * index + 1) * total // (2 * max(1, keep))
    return kept.expand(images, keep)


UNIFORM = Method("uniform", select)
