"""Resize: the image shrunk before the encoder to as many patches as are kept.

The baseline that costs least: the encoder itself runs on the small image.

    grid   = s x s or s x (s + 1) patches, the most that the budget holds
    pixels = the preprocessed image, shrunk to grid * patch size (bicubic, antialiased)
    tokens = what the encoder makes of it; all are kept

CLIP and SigLIP towers have one learnt position a patch of their full grid. Those of the small grid
are **interpolated** from them (bicubic, antialiased), as `interpolate_pos_encoding` does in
`transformers`; neither tower knows a dynamic resolution.

Deviation from "exactly the budget": 58 tokens become 7 x 8 = 56. The count is known from the budget
alone, so prompt and model agree. A single token is 1 x 1, two are 1 x 2.
"""

from __future__ import annotations

from math import isqrt

import torch

from vllm_pruner.methods.base import Method, Need, Options, VisualTokens
from vllm_pruner.methods.budget import Budget, keep_count

__all__ = ["RESIZE"]


def count(tokens: int, budget: Budget) -> int:
    """Return the most tokens of a grid s x s or s x (s + 1) within the budget."""
    most = keep_count(tokens, budget)
    side = isqrt(most)
    return max(side * side, side * (side + 1) if side * (side + 1) <= most else 0)


def shrink(keep: int) -> tuple[int, int]:
    """Return rows and columns of patches for one of the counts of `count`."""
    side = isqrt(keep)
    return side, keep // side


def select(tokens: VisualTokens, keep: int, options: Options) -> torch.Tensor:
    """Return all of the `keep` tokens that the encoder made."""
    images, total, _ = tokens.features.shape
    assert total == keep, f"{total} tokens of an image that was to be shrunk to {keep}"
    return torch.arange(keep, device=tokens.features.device).expand(images, keep)


RESIZE = Method("resize", select, needs=frozenset({Need.GRID}), keep_count=count, shrink=shrink)
