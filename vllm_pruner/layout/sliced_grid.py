"""An image as one grid of tokens of the whole picture, and one of each slice that the picture is
cut into: MiniCPM-V.

All keep about the picture's shape, so slices are no squares, and have other sizes than the whole
picture has. Marks in the prompt, which is built before the tower runs, tell them apart. So each has
a fixed share of the budget, in proportion to its tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.layout import View
from vllm_pruner.layout.patches_alone import PatchesAlone
from vllm_pruner.layout.shares import shares

__all__ = ["SlicedGrid"]


@dataclass(frozen=True, slots=True)
class SlicedGrid(PatchesAlone):
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
    def frames(self) -> int:
        """0: it is an image; see `GridLayout`."""
        return 0

    def shares(self, keep: int) -> list[int]:
        """Return how many of the `keep` tokens of an image each crop keeps."""
        return shares([grid.tokens for grid in self.grids], keep)

    @property
    def tokens(self) -> int:
        return prod(self.whole) + prod(self.slices) * prod(self.part)

    @property
    def whole_grid(self) -> tuple[int, int] | None:
        return self.whole if self.crops == 1 else None

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
