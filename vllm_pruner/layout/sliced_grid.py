"""An image as one grid of tokens of the whole picture, and one of each slice that the picture is
cut into: MiniCPM-V.

All keep about the picture's shape, so slices are no squares, and have other sizes than the whole
picture has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.grids_apart import GridsApart

__all__ = ["SlicedGrid"]


@dataclass(frozen=True, slots=True)
class SlicedGrid(GridsApart):
    """The layout of one image; see `Layout`. Its crops are the whole picture and the slices, which
    follow row by row."""

    whole: tuple[int, int]
    """Rows and columns of tokens of the whole picture."""

    part: tuple[int, int] = (0, 0)
    """Rows and columns of tokens of each slice."""

    slices: tuple[int, int] = (0, 0)
    """Rows and columns of slices."""

    @property
    def grids(self) -> list[GridLayout]:
        return [GridLayout(*self.whole), *[GridLayout(*self.part)] * prod(self.slices)]

    @property
    def whole_at(self) -> int:
        return 0

    def places_at(self, positions: torch.Tensor, within: SlicedGrid) -> torch.Tensor:
        """Return `[..., 3]` int64, time, row and column of the tokens at positions, as MiniCPM-V
        4.7 counts them: on a canvas of all slices, over which the whole picture is spread.

        Args:
            positions: `[...]` int64, on the CPU.
            within: the layout in which positions are counted: this one, or what `compact` returns.
        """
        crops = zip(self.grids, within.grids, within._corners(), strict=True)
        places = []
        for number, (grid, counted, (top, left)) in enumerate(crops):
            at = grid.places_at(torch.arange(grid.tokens, device="cpu"), counted)
            time, row, column = (within._spread(at) if number == 0 else at).unbind(-1)
            places.append(torch.stack([time, row + top, column + left], dim=-1))
        return torch.cat(places)[positions]

    def _corners(self) -> list[tuple[int, int]]:
        """Return row and column on the canvas of each crop's first token."""
        down, across = self.slices
        corners = [(r * self.part[0], c * self.part[1]) for r in range(down) for c in range(across)]
        return [(0, 0), *corners]

    def _spread(self, places: torch.Tensor) -> torch.Tensor:
        """Return places in the whole picture where they are on the canvas, rounded as vLLM does."""
        if self.crops == 1:
            return places
        ends = [count * size - 1 for count, size in zip(self.slices, self.part, strict=True)]
        row, column = (
            torch.linspace(0, end, size, device="cpu").round().long()
            for end, size in zip(ends, self.whole, strict=True)
        )
        time, rows, columns = places.unbind(-1)
        return torch.stack([time, row[rows], column[columns]], dim=-1)

    def compact(self, keep: int) -> SlicedGrid:
        """Return a layout of as many slices with room for `keep` of its tokens, 1 to all, in grids
        of about the same aspect ratios."""
        of_whole, *of_parts = self.shares(keep)
        whole = GridLayout(*self.whole).compact(max(1, of_whole)).whole_grid
        if not of_parts:
            return replace(self, whole=whole)
        part = GridLayout(*self.part).compact(max(1, *of_parts)).whole_grid
        return replace(self, whole=whole, part=part)
