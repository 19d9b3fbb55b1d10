"""An image as tiles of equal size, one after the other: InternVL, Idefics3 and SmolVLM.

The picture is cut into a grid of tiles; of more than one, a thumbnail of the whole picture follows.
Which of the grids with that many tiles it was makes no difference to the order of tokens, so it is
not known here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vllm_pruner.layout.layout import View

__all__ = ["TileLayout"]


@dataclass(frozen=True, slots=True)
class TileLayout:
    """The layout of one image; see `Crops`."""

    side: int
    """Rows and columns of tokens in a tile."""

    crops: int
    """Tiles, a thumbnail among them."""

    fixed_shares: bool = False
    """Whether other tokens of the prompt stand between tiles; see `Crops`."""

    @property
    def base(self) -> int:
        return self.side**2

    @property
    def tokens(self) -> int:
        return self.crops * self.base

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
        return (self.side, self.side) if self.crops == 1 else None

    def sources(self, device: torch.device) -> torch.Tensor:
        return torch.arange(self.tokens, device=device)

    def patches_of_crops(self, device: torch.device) -> list[torch.Tensor]:
        return list(self.sources(device).split(self.base))

    def patches_at(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return positions, torch.zeros_like(positions, dtype=torch.bool)

    def views(self) -> list[View]:
        """Return every tile by itself; the last one, which is the thumbnail, is the base crop."""
        whole, tokens = (0, self.side), self.base
        return [
            View((0, 0), whole, whole, n * tokens, (n + 1) * tokens, crop=(n + 1) % self.crops)
            for n in range(self.crops)
        ]
