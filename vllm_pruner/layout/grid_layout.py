"""An image as one grid of tokens, of any resolution: Qwen-VL and its kin.

The tower's patches are merged two by two before the decoder sees them; rows and columns here are
those of merged tokens, in raster order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vllm_pruner.layout.layout import View

__all__ = ["GridLayout"]


@dataclass(frozen=True, slots=True)
class GridLayout:
    """The layout of one image; see `Layout`."""

    rows: int
    columns: int

    @property
    def tokens(self) -> int:
        return self.rows * self.columns

    @property
    def patches(self) -> int:
        return self.tokens

    @property
    def encoded(self) -> int:
        return self.tokens

    @property
    def crops(self) -> int:
        return 1

    @property
    def height(self) -> int:
        return 0

    @property
    def whole_grid(self) -> tuple[int, int]:
        return self.rows, self.columns

    def patches_at(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return positions, torch.zeros_like(positions, dtype=torch.bool)

    def places_at(self, positions: torch.Tensor) -> torch.Tensor:
        """Return `[..., 3]` int64, time, row and column of the tokens at positions, as multi-
        dimensional rotary positions count them: from 0 for each image."""
        row, column = positions // self.columns, positions % self.columns
        return torch.stack([torch.zeros_like(row), row, column], dim=-1)

    def views(self) -> list[View]:
        return [View((0, 0), (0, self.rows), (0, self.columns), 0, self.tokens)]
