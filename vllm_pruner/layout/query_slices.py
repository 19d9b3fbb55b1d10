"""An image as the same number of learned queries for the whole picture and for each slice that it
is cut into: MiniCPM-V with a resampler.

A query may look anywhere in its slice, so tokens have an order and no places: there is no grid, not
even of an image that is not cut. Marks in the prompt tell slices apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vllm_pruner.layout.layout import View
from vllm_pruner.layout.patches_alone import PatchesAlone

__all__ = ["QuerySlices"]


@dataclass(frozen=True, slots=True)
class QuerySlices(PatchesAlone):
    """The layout of one image; see `Crops`. Its crops are the whole picture and the slices."""

    base: int
    """Queries, and so tokens, of a crop."""

    crops: int
    """Number of slices, and one for the whole picture, which comes first."""

    @property
    def fixed_shares(self) -> bool:
        """True; see `Crops`."""
        return True

    @property
    def tokens(self) -> int:
        return self.crops * self.base

    @property
    def whole_grid(self) -> tuple[int, int] | None:
        """None: queries form no grid."""
        return None

    def sources(self, device: torch.device) -> torch.Tensor:
        return torch.arange(self.tokens, device=device)

    def patches_of_crops(self, device: torch.device) -> list[torch.Tensor]:
        return list(self.sources(device).split(self.base))

    def views(self) -> list[View]:
        """Return one view for each crop: its queries in a row, which is no part of the picture."""
        row = ((0, 1), (0, self.base))
        return [
            View((0, 0), *row, n * self.base, (n + 1) * self.base, crop=n, is_drawn=False)
            for n in range(self.crops)
        ]
