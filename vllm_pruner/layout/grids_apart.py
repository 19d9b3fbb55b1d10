"""What layouts have in common whose crops are grids of tokens of sizes of their own.

Marks in the prompt, which is built before the tower runs, tell the crops apart. So each has a fixed
share of the budget, in proportion to its tokens.
"""

from __future__ import annotations

from abc import abstractmethod
from itertools import accumulate, pairwise

import torch

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.layout import View
from vllm_pruner.layout.patches_alone import PatchesAlone
from vllm_pruner.layout.shares import shares

__all__ = ["GridsApart"]


class GridsApart(PatchesAlone):
    """Base of a `Layout` of the whole picture and of parts of it."""

    __slots__ = ()

    whole: tuple[int, int]
    """Rows and columns of tokens of the whole picture."""

    @property
    @abstractmethod
    def grids(self) -> list[GridLayout]:
        """The grid of tokens of each crop."""

    @property
    @abstractmethod
    def whole_at(self) -> int:
        """Which crop is the whole picture."""

    @property
    def fixed_shares(self) -> bool:
        """True; see `Crops`."""
        return True

    @property
    def crops(self) -> int:
        return len(self.grids)

    @property
    def frames(self) -> int:
        """0: it is an image; see `GridLayout`."""
        return 0

    @property
    def sizes(self) -> list[int]:
        """The tokens of each crop."""
        return [grid.tokens for grid in self.grids]

    def shares(self, keep: int) -> list[int]:
        """Return how many of the `keep` tokens of an image each crop keeps."""
        return shares(self.sizes, keep)

    @property
    def tokens(self) -> int:
        return sum(self.sizes)

    @property
    def whole_grid(self) -> tuple[int, int] | None:
        return self.whole if self.crops == 1 else None

    def patches_of_crops(self, device: torch.device) -> list[torch.Tensor]:
        """Return the tokens of each crop, ascending."""
        return list(torch.arange(self.tokens, device=device).split(self.sizes))

    def views(self) -> list[View]:
        """Return one view for each crop, the whole picture the base crop. All are shown as large as
        the whole picture."""
        shown = ((0, self.whole[0]), (0, self.whole[1]))
        ends = pairwise(accumulate(self.sizes, initial=0))
        others = [None if grid.whole_grid == self.whole else grid.whole_grid for grid in self.grids]
        return [
            View((0, 0), *shown, *reach, crop=(n - self.whole_at) % self.crops, tokens=others[n])
            for n, reach in enumerate(ends)
        ]
