"""An image of any resolution as one grid of tokens that stand in a prompt by pairs of rows: of each
column its upper and its lower token, then both breaks. DeepSeek-V4's.

Tokens are numbered in raster order all the same; only what goes to the decoder is in pairs. Those
at the right and lower edge may have fewer patches than the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vllm_pruner.layout.grid_layout import GridLayout

__all__ = ["PairedRows"]


@dataclass(frozen=True, slots=True)
class PairedRows(GridLayout):
    """The layout of one image; see `Layout`."""

    high: int = 0
    """Rows of patches."""

    wide: int = 0
    """Columns of patches."""

    @property
    def breaks(self) -> int:
        return self.rows

    def order_with_breaks(self, index: torch.Tensor) -> torch.Tensor:
        """Return `[images, keep + rows]` int64, as `GridLayout.order_with_breaks`; the last row has
        a break too."""
        rows = torch.arange(self.rows, device=index.device)
        ends = self._place(rows, self.columns).expand(len(index), -1)
        tokens = self._place(index // self.columns, index % self.columns)
        return torch.cat([tokens, ends], dim=1).argsort(dim=1, stable=True)

    def _place(self, row: torch.Tensor, column: torch.Tensor | int) -> torch.Tensor:
        """Return where a token, or in the column behind the last a break, stands in the prompt."""
        return 2 * (row // 2 * (self.columns + 1) + column) + row % 2
