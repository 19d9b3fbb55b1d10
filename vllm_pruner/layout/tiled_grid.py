"""An image as square tiles of one size and the whole picture behind them, which keeps its shape; or
the whole picture alone: LFM2-VL, Step3-VL.

The order of tokens depends only on the number of tiles, so the shape of their grid is not recorded
here.
"""

from __future__ import annotations

from dataclasses import dataclass

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.grids_apart import GridsApart

__all__ = ["TiledGrid"]


@dataclass(frozen=True, slots=True)
class TiledGrid(GridsApart):
    """The layout of one image; see `Layout`. Its crops are the tiles, row by row, and the whole
    picture."""

    whole: tuple[int, int]
    """Rows and columns of tokens of the whole picture."""

    side: int = 0
    """Rows, and columns, of tokens of each tile."""

    tiles: int = 0

    @property
    def grids(self) -> list[GridLayout]:
        return [GridLayout(self.side, self.side)] * self.tiles + [GridLayout(*self.whole)]

    @property
    def whole_at(self) -> int:
        return self.tiles
