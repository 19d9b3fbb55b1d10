"""An image as tiles of equal size whose last rows and columns may be padding: Llama 4.

The picture fills a grid of tiles from its upper left corner on; what is left of the grid is blank,
in the decoder's sequence too, and so counts as patches here. If the grid has more than one tile,
one that shows the whole picture, and is never padded, follows them.

The prompt, which is built before the tower runs, has other tokens between tiles, so each tile has a
fixed share of the budget. What is padding is known by then. So shares are in proportion to the
tokens that show some of the picture, and methods see these alone. Padding is kept only beside all
of them: the first of it in each tile, in proportion to how much there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from vllm_pruner.layout.layout import TABLES
from vllm_pruner.layout.shares import shares
from vllm_pruner.layout.tile_layout import TileLayout
from vllm_pruner.methods.on_device import sent

__all__ = ["PaddedTiles", "with_padding"]


@dataclass(frozen=True, slots=True)
class PaddedTiles(TileLayout):
    """The layout of one image; see `Crops`."""

    shown: tuple[tuple[int, int], ...] = ()
    """Rows and columns of tokens that show some of the picture, of each tile."""

    @property
    def showing(self) -> int:
        """Number of tokens that show some of the picture."""
        return sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        return [rows * columns for rows, columns in self.shown]

    def shares(self, keep: int) -> list[int]:
        """Return how many of the `keep` tokens of an image each tile keeps."""
        sizes = self._sizes
        if keep <= self.showing:
            return shares(sizes, keep)
        blank = shares([self.base - size for size in sizes], keep - self.showing)
        return [sum(each) for each in zip(sizes, blank, strict=True)]

    def patches_of_crops(self, device: torch.device) -> list[torch.Tensor]:
        """Return the patches of each tile that show some of the picture, ascending."""
        row, column = (torch.arange(self.side, device=device) for _ in range(2))
        return [
            (number * self.base + row[:rows, None] * self.side + column[:columns]).flatten()
            for number, (rows, columns) in enumerate(self.shown)
        ]


@lru_cache(maxsize=TABLES)
def with_padding(layout: PaddedTiles, keep: int, device: torch.device) -> torch.Tensor:
    """Return `[keep]` int64, ascending: all tokens that show some of the picture, and the padding
    that is kept beside them."""
    here = torch.device("cpu")
    kept = []
    tiles = layout.sources(here).split(layout.base)
    of_tiles = zip(tiles, layout.patches_of_crops(here), layout.shares(keep), strict=True)
    for tile, showing, share in of_tiles:
        blank = tile[~torch.isin(tile, showing)]
        kept.append(torch.cat([showing, blank[: share - len(showing)]]).sort().values)
    return sent(torch.cat(kept), device)
