"""An image as a grid of tokens of its crops, if it has any, and one of the whole picture behind:
DeepSeek-OCR.

Both stand in one run of the prompt, in which any token may be kept, among marks of the model's own:
one behind each row of either grid, and one that ends the image. All marks stay. They count in no
budget, as they say where the kept tokens are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.grids_apart import GridsApart
from vllm_pruner.layout.layout import TABLES
from vllm_pruner.methods.on_device import sent

__all__ = ["FineThenWhole"]


@dataclass(frozen=True, slots=True)
class FineThenWhole(GridsApart):
    """The layout of one image; see `Crops`. Its crops are the two grids, which a method may see as
    one list."""

    whole: tuple[int, int]
    """Rows and columns of tokens of the whole picture."""

    fine: tuple[int, int] = (0, 0)
    """The same of all crops together; zeros if there are none."""

    @property
    def fixed_shares(self) -> bool:
        """False: nothing in the prompt but the marks separates the two."""
        return False

    @property
    def grids(self) -> list[GridLayout]:
        return [GridLayout(*size) for size in (self.fine, self.whole) if size[0]]

    @property
    def whole_at(self) -> int:
        return len(self.grids) - 1

    @property
    def breaks(self) -> int:
        """Marks behind rows. One more ends the image."""
        return self.fine[0] + self.whole[0]

    def order_with_marks(self, index: torch.Tensor) -> torch.Tensor:
        """Return `[images, keep + breaks + 1]` int64, the order of the kept tokens and of all
        marks: a token is its column in `index`, marks are numbered from `keep` on.

        Args:
            index: `[images, keep]` int64, ascending. Rows that keep nothing have a mark too.
        """
        tokens, marks = _places(self, index.device)
        places = torch.cat([tokens[index], marks.expand(len(index), -1)], dim=1)
        return places.argsort(dim=1)


@lru_cache(maxsize=TABLES)
def _places(layout: FineThenWhole, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where in the unpruned run each token is, `[tokens]` int64, and each mark."""
    tokens, marks, start = [], [], 0
    for grid in layout.grids:
        run = torch.arange(start, start + grid.rows * (grid.columns + 1), device="cpu")
        rows = run.view(grid.rows, grid.columns + 1)
        tokens.append(rows[:, :-1].flatten())
        marks.append(rows[:, -1])
        start += run.numel()
    marks.append(torch.arange(start, start + 1, device="cpu"))
    return sent(torch.cat(tokens), device), sent(torch.cat(marks), device)
