"""An image as tiles of equal size, one after the other: InternVL, Idefics3, SmolVLM and Gemma 3.

The picture is cut into a grid of tiles; if there is more than one, one of them shows the whole
picture. The order of tokens depends only on the number of tiles, so the shape of the grid is not
recorded here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vllm_pruner.layout.layout import View
from vllm_pruner.layout.patches_alone import PatchesAlone

__all__ = ["TileLayout"]


@dataclass(frozen=True, slots=True)
class TileLayout(PatchesAlone):
    """The layout of one image; see `Crops`."""

    side: int
    """Rows (and columns) of tokens in a tile."""

    crops: int
    """Number of tiles, including the one of the whole picture."""

    fixed_shares: bool = False
    """Whether other tokens separate the tiles in the prompt; see `Crops`."""

    whole: int = -1
    """Which tile shows the whole picture: the first or, counted from the end, the last one."""

    @property
    def base(self) -> int:
        return self.side**2

    @property
    def tokens(self) -> int:
        return self.crops * self.base

    @property
    def whole_grid(self) -> tuple[int, int] | None:
        return (self.side, self.side) if self.crops == 1 else None

    def sources(self, device: torch.device) -> torch.Tensor:
        return torch.arange(self.tokens, device=device)

    def patches_of_crops(self, device: torch.device) -> list[torch.Tensor]:
        return list(self.sources(device).split(self.base))

    def views(self) -> list[View]:
        """Return one view for each tile; the tile of the whole picture is the base crop."""
        area, tokens = ((0, self.side), (0, self.side)), self.base
        return [
            View((0, 0), *area, n * tokens, (n + 1) * tokens, crop=(n - self.whole) % self.crops)
            for n in range(self.crops)
        ]
