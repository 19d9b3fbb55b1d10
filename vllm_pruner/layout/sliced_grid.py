"""An image as one grid of tokens of the whole picture, and one of each slice that the picture is
cut into: MiniCPM-V.

All keep about the picture's shape, so slices are no squares, and have other sizes than the whole
picture has. Marks in the prompt, which is built before the tower runs, tell them apart. So each has
a fixed share of the budget, in proportion to its tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.layout import View

__all__ = ["SlicedGrid"]


@dataclass(frozen=True, slots=True)
class SlicedGrid:
    """The layout of one image; see `Layout`. Its crops are the whole picture and the slices, which
    follow row by row."""

    whole: tuple[int, int]
    """Rows and columns of tokens of the whole picture."""

    part: tuple[int, int] = (0, 0)
    """Rows and columns of tokens of each slice."""

    slices: tuple[int, int] = (0, 0)
    """Rows and columns of slices."""

    @property
    def fixed_shares(self) -> bool:
        """True; see `Crops`."""
        return True

    @property
    def crops(self) -> int:
        return 1 + prod(self.slices)

    @property
    def grids(self) -> list[GridLayout]:
        """The grid of tokens of each crop."""
        return [GridLayout(*self.whole), *[GridLayout(*self.part)] * (self.crops - 1)]

    @property
    def tokens(self) -> int:
        return prod(self.whole) + prod(self.slices) * prod(self.part)

    @property
    def patches(self) -> int:
        return self.tokens

    @property
    def encoded(self) -> int:
        return self.tokens

    @property
    def height(self) -> int:
        return 0

    @property
    def whole_grid(self) -> tuple[int, int] | None:
        return self.whole if self.crops == 1 else None

    def patches_at(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return positions, torch.zeros_like(positions, dtype=torch.bool)

    def patches_of_crops(self, device: torch.device) -> list[torch.Tensor]:
        """Return the tokens of each crop, ascending."""
        sizes = [grid.tokens for grid in self.grids]
        return list(torch.arange(self.tokens, device=device).split(sizes))

    def views(self) -> list[View]:
        """Return one view for each crop. All are shown as large as the whole picture."""
        shown = ((0, self.whole[0]), (0, self.whole[1]))
        first = View((0, 0), *shown, 0, prod(self.whole))
        size, start = prod(self.part), first.end
        return [first] + [
            View((0, 0), *shown, begin, begin + size, crop=number, tokens=self.part)
            for number, begin in enumerate(range(start, self.tokens, size or 1), 1)
        ]
