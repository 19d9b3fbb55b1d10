"""Resize: shrink the image before the encoder to the largest grid of patches within the budget.

The cheapest baseline: the encoder itself runs on the small image.

    grid   = s x s or s x (s + 1) patches, the largest that fits the budget
    pixels = the preprocessed image, shrunk to grid * patch size (bicubic, antialiased)
    tokens = the encoder's output for these pixels; all are kept

CLIP and SigLIP towers have one learned position embedding for each patch of their full grid. Those
of the small grid are **interpolated** from them (bicubic, antialiased), as
`interpolate_pos_encoding` in `transformers` does; neither tower supports a dynamic resolution.

Deviation from "exactly the budget": a budget of 58 keeps 7 x 8 = 56. The count follows from the
budget alone, so prompt and model agree. One token is 1 x 1, two are 1 x 2.
"""

from __future__ import annotations

from math import isqrt

import torch

from vllm_pruner.methods.base import Method, Need, Options, VisualTokens
from vllm_pruner.methods.budget import Budget, keep_count

__all__ = ["RESIZE"]


def count(tokens: int, budget: Budget) -> int:
    """Return the tokens of the largest grid s x s or s x (s + 1) within the budget."""
    most = keep_count(tokens, budget)
    side = isqrt(most)
    return max(side * side, side * (side + 1) if side * (side + 1) <= most else 0)


def shrink(keep: int) -> tuple[int, int]:
    """Return rows and columns of patches for a number that `count` returned."""
    side = isqrt(keep)
    return side, keep // side


def select(tokens: VisualTokens, keep: int, options: Options) -> torch.Tensor:
    """Return `[images, keep]` indices: all the tokens of the shrunk images."""
    images, total, _ = tokens.features.shape
    assert total == keep, f"{total} tokens in an image that should have been shrunk to {keep}"
    return torch.arange(keep, device=tokens.features.device).expand(images, keep)


RESIZE = Method("resize", select, needs=frozenset({Need.GRID}), keep_count=count, shrink=shrink)
