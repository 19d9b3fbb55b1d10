"""The positions of an image's crops in the decoder's sequence: LLaVA's kin.

An image is a base crop (the whole picture, resized) and possibly a grid of crops (the picture
enlarged and padded to fill the grid). The decoder sees the base crop's tokens, then the raster of
all other crops together, without the padding around the picture, with a newline token after each of
its rows. A raster of too many patches may be resampled to fewer tokens first (LLaVA-OneVision).
All of it follows from the image's size, so nothing here reads a tensor.

Patches and positions are defined in `layout`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from vllm_pruner.layout.layout import TABLES, View
from vllm_pruner.methods.on_device import sent

__all__ = ["CropLayout"]


@dataclass(frozen=True, slots=True)
class CropLayout:
    """The layout of one image; hashable, so that images with equal layouts can share a batch."""

    base: int
    """N, the tokens of each crop, the base crop included."""

    side: int = 0
    """Rows (and columns) of patches in a crop. Its square is N, unless the image is one crop and
    the tower drops a patch."""

    grid: tuple[int, int] = (0, 0)
    """Rows and columns of crops."""

    rows: tuple[int, int] = (0, 0)
    """The rows of the grid's raster that are not padding, as a half-open range."""

    columns: tuple[int, int] = (0, 0)
    """The same of its columns."""

    resampled: tuple[int, int] | None = None
    """Rows and columns of tokens that the raster is interpolated to; None if it is not. These
    tokens then count as the raster's patches."""

    @property
    def fixed_shares(self) -> bool:
        """False: all placeholders form one run, newlines included."""
        return False

    @property
    def crops(self) -> int:
        """Number of crops that the tower encodes."""
        return 1 + self.grid[0] * self.grid[1]

    @property
    def encoded(self) -> int:
        """Number of rows in the tower's output for all crops, padding included."""
        return self.crops * self.base

    @property
    def whole_grid(self) -> tuple[int, int] | None:
        """Rows and columns of tokens if the image is one complete grid of them, else None."""
        complete = self.crops == 1 and self.side**2 == self.base
        return (self.side, self.side) if complete else None

    @property
    def raster(self) -> tuple[int, int]:
        """Rows and columns of the raster before resampling, without padding."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    @property
    def height(self) -> int:
        """Number of rows of the raster, and of newlines."""
        return (self.resampled or self.raster)[0]

    @property
    def width(self) -> int:
        """Number of patches in a row of the raster. 0 for a picture so narrow that all of it is cut
        off as padding: then its rows consist of newlines only."""
        return (self.resampled or self.raster)[1]

    @property
    def patches(self) -> int:
        """Number of tokens from the tower, without padding."""
        return self.base + self.height * self.width

    @property
    def tokens(self) -> int:
        """Number of positions: patches and newlines, as many as placeholders without pruning."""
        return self.patches + self.height

    def sources(self, device: torch.device) -> torch.Tensor:
        """Return `[patches]` int64, the index of each patch among the tower's `crops * N` rows. If
        the raster is resampled, these are the patches before resampling."""
        row = torch.arange(*self.rows, device=device).unsqueeze(1)
        column = torch.arange(*self.columns, device=device)
        side = max(1, self.side)
        crop = 1 + row // side * self.grid[1] + column // side
        raster = crop * self.base + row % side * side + column % side
        return torch.cat([torch.arange(self.base, device=device), raster.flatten()])

    def patches_of_crops(self, device: torch.device) -> list[torch.Tensor]:
        """Return the patches of each crop, ascending; empty for a crop that is all padding."""
        crops = [torch.arange(self.base, device=device)]
        for grid_row in range(self.grid[0]):
            rows = self._span(self.rows, self.height, grid_row, device).unsqueeze(1)
            for grid_column in range(self.grid[1]):
                columns = self._span(self.columns, self.width, grid_column, device)
                crops.append((self.base + rows * self.width + columns).flatten())
        return crops

    def _span(
        self, bounds: tuple[int, int], length: int, crop: int, device: torch.device
    ) -> torch.Tensor:
        """Return those of the raster's `length` rows (or columns) whose centres lie in the n-th row
        (or column) of crops."""
        whole = max(1, bounds[1] - bounds[0])
        edges = (
            min(max(crop_end * self.side, bounds[0]), bounds[1]) - bounds[0]
            for crop_end in (crop, crop + 1)
        )
        first, last = (-((whole - 2 * edge * length) // (2 * whole)) for edge in edges)
        return torch.arange(first, last, device=device)

    def patches_at(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the patch at each position, and a mask of the newlines (whose patch is 0)."""
        if not self.height:
            return positions, torch.zeros_like(positions, dtype=torch.bool)
        patch, newline = _at_every_position(self, positions.device)
        return patch[positions], newline[positions]

    def views(self) -> list[View]:
        """Return the base crop, and the raster of the other crops if there are any."""
        missing = self.side * self.side - self.base
        whole = (0, self.side)
        base = View((0, 0), whole, whole, 0, self.base, missing)
        bounds = (self.grid, self.rows, self.columns)
        raster = View(*bounds, self.base, self.patches, tokens=self.resampled)
        return [base, raster] if self.height else [base]


@lru_cache(maxsize=TABLES)
def _at_every_position(
    layout: CropLayout, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `[tokens]` each, what `CropLayout.patches_at` returns of all positions."""
    positions = torch.arange(layout.tokens, device="cpu")
    in_raster = positions - layout.base
    row, column = in_raster // (layout.width + 1), in_raster % (layout.width + 1)
    newline = (in_raster >= 0) & (column == layout.width)
    patch = (layout.base + row * layout.width + column).where(in_raster >= 0, positions)
    return sent(patch.masked_fill(newline, 0), device), sent(newline, device)
