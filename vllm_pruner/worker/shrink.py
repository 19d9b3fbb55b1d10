"""Shrink images before the tower, for methods that ask for a smaller grid of patches.

The tower's learned position embeddings are those of its full grid. While a small image is encoded,
they are interpolated to the small grid, as `interpolate_pos_encoding` does in `transformers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import isqrt
from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate

from vllm_pruner import compat

__all__ = ["middles", "shrink_pixels", "small_positions"]


def shrink_pixels(pixels: torch.Tensor, grid: tuple[int, int], patch: int) -> torch.Tensor:
    """Shrink `[images, 3, height, width]` to `[images, 3, rows * patch, columns * patch]`.

    Args:
        pixels: preprocessed images of any float dtype, which the result has too.
        grid: rows and columns of patches.
        patch: side of a patch in pixels.
    """
    size = [side * patch for side in grid]
    small = interpolate(pixels.float(), size=size, mode="bicubic", antialias=True)
    return small.to(pixels.dtype)


def middles(small: tuple[int, int], full: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Return `[rows * columns]` int64: for each token of the small grid, the index of the token at
    its centre in the full grid."""
    row, column = (
        (2 * torch.arange(few, device=device) + 1) * many // (2 * few)
        for few, many in zip(small, full, strict=True)
    )
    return (row[:, None] * full[1] + column).flatten()


@contextmanager
def small_positions(tower: nn.Module, grid: tuple[int, int]) -> Iterator[None]:
    """Within the block, make the tower accept images of `grid` rows and columns of patches."""

    def smaller(_module: nn.Module, _args: Any, full: torch.Tensor) -> torch.Tensor:
        """Replace the embedding's output `[1, positions, D]`."""
        side = isqrt(full.shape[1])  # a class token is one more than a square
        own = full.shape[1] - side * side
        square = full[:, own:].unflatten(1, (side, side)).permute(0, 3, 1, 2).float()
        small = interpolate(square, size=list(grid), mode="bicubic", antialias=True)
        return torch.cat([full[:, :own], small.flatten(2).mT.to(full.dtype)], dim=1)

    handle = compat.position_embedding(tower).register_forward_hook(smaller)
    try:
        yield
    finally:
        handle.remove()
