"""An image as one grid of tokens of the whole picture, and a finer one of all of it behind: Molmo2.

Both stand in one run of the prompt, in which any token may be kept, among marks of the model's own:
one before and one behind each grid, and as a rule one behind each row. All marks stay. They count
in no budget, as they say where the kept tokens are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.grids_apart import GridsApart
from vllm_pruner.layout.layout import TABLES
from vllm_pruner.methods.on_device import sent

__all__ = ["BREAK", "END", "FINE", "WHOLE", "TwoGrids"]

WHOLE, FINE, BREAK, END = range(4)
"""Kinds of marks: what is before the grid of the whole picture, and before the finer one; what is
behind a row; what is behind a grid."""


@dataclass(frozen=True, slots=True)
class TwoGrids(GridsApart):
    """The layout of one image; see `Crops`. Its crops are the two grids, which a method may see as
    one list."""

    whole: tuple[int, int]
    """Rows and columns of tokens of the whole picture."""

    fine: tuple[int, int]
    """The same of the finer grid."""

    breaks: tuple[bool, bool] = (True, True)
    """Whether rows of either end in a mark."""

    @property
    def fixed_shares(self) -> bool:
        """False: nothing in the prompt but the marks separates the two."""
        return False

    @property
    def grids(self) -> list[GridLayout]:
        return [GridLayout(*self.whole), GridLayout(*self.fine)]

    @property
    def whole_at(self) -> int:
        return 0

    def marks(self) -> list[int]:
        """Return the kind of each mark, in order."""
        kinds = []
        for first, grid, has_breaks in zip((WHOLE, FINE), self.grids, self.breaks, strict=True):
            kinds += [first, *[BREAK] * (grid.rows * has_breaks), END]
        return kinds

    def order_with_marks(self, index: torch.Tensor) -> torch.Tensor:
        """Return `[images, keep + marks]` int64, the order of the kept tokens and of all marks: a
        token is its column in `index`, marks are numbered from `keep` on.

        Args:
            index: `[images, keep]` int64, ascending. Rows that keep nothing have a mark too.
        """
        tokens, marks = _places(self, index.device)
        places = torch.cat([tokens[index], marks.expand(len(index), -1)], dim=1)
        return places.argsort(dim=1)


@lru_cache(maxsize=TABLES)
def _places(layout: TwoGrids, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where in the unpruned run each token is, `[tokens]` int64, and each mark."""
    of_grids, start = [], 0
    for grid, has_breaks in zip(layout.grids, layout.breaks, strict=True):
        width = grid.columns + has_breaks
        run = torch.arange(grid.rows * width, device="cpu").view(grid.rows, width)
        of_grids.append((run[:, : grid.columns] + start + 1).flatten())
        start += run.numel() + 2  # and the marks before and behind
    tokens = torch.cat(of_grids)
    marks = torch.ones(start, dtype=torch.bool, device="cpu").index_fill(0, tokens, False)
    return sent(tokens, device), sent(marks.nonzero().flatten(), device)
