"""The order in which a tower of `transformers` has a picture's tokens."""

from __future__ import annotations

from typing import Any

import torch
from transformers.vision_utils import get_vision_window_index

__all__ = ["in_raster"]


def in_raster(tokens: torch.Tensor, visual: Any, grid_thw: torch.Tensor) -> torch.Tensor:
    """Return `[tokens, ...]` in raster order, which a tower with windows sorts by window."""
    if not hasattr(visual, "window_size"):
        return tokens
    order, _ = get_vision_window_index(
        grid_thw,
        spatial_merge_size=visual.spatial_merge_size,
        window_size=visual.window_size,
        patch_size=visual.patch_size,
    )
    raster = torch.empty_like(tokens)
    raster[torch.as_tensor(order)] = tokens
    return raster
