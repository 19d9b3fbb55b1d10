"""What both forms of Mistral's vision models have in common. An image of any size is one grid of
tokens; each row ends in [IMG_BREAK], the last one in [IMG_END]: positions are one-dimensional, so
only these tokens tell where a row ends.

All breaks are kept, and any token may be. The prompt is built before the tower runs, when it is not
yet known between which kept tokens the breaks will be. So breaks are placeholders too, and the
model inserts their embeddings among the rows of the image. Breaks as text would fix a share of the
budget for each row; without breaks the decoder could not tell columns from rows. A row that keeps
no token keeps its break, so that the rows below stay in place. Breaks do not count towards the
budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from vtprune_kernels import gather_rows

from vllm_pruner.layout.cuts import cut_runs
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.layout import Layout
from vllm_pruner.worker.model import PrunedModel

if TYPE_CHECKING:
    from vllm_pruner.worker.batches import Group

__all__ = ["RowsWithBreaks", "cut", "separators"]


def separators(layout: Layout) -> int:
    """Return the number of an image's breaks; see `Family.separators`."""
    assert isinstance(layout, GridLayout)
    return layout.breaks


def cut(full: Sequence[int], is_embed: Sequence[bool], kept: int) -> list[int]:
    """Return placeholders for kept tokens and breaks, then the token that ends an image; see
    `Family.cut`."""
    pairs = list(zip(full, is_embed, strict=True))
    tokens = [token for token, embeds in pairs if embeds]
    structure = [token for token, embeds in pairs if not embeds]
    short = cut_runs(tokens, [True] * len(tokens), kept)
    return short + short[:1] * len(structure[:-1]) + structure[-1:]


class RowsWithBreaks(PrunedModel):
    """A `PrunedModel` whose images have breaks.

    Change: the rows of a pruned image include its breaks.
    """

    line_break: int
    """The id of [IMG_BREAK]."""

    def break_row(self, index: torch.Tensor) -> torch.Tensor:
        """Return the row of a break, `[1, width of the decoder]`, where `index` is."""
        return self.embed_plain(index.new_full((1,), self.line_break))

    def placed(self, rows: torch.Tensor, index: torch.Tensor, group: Group) -> torch.Tensor:
        """Return the rows with the breaks between those of the picture."""
        layout = group.layout
        assert isinstance(layout, GridLayout)
        breaks = self.break_row(index).expand(len(rows), layout.breaks, -1)
        order = layout.order_with_breaks(index)
        return gather_rows([torch.cat([rows, breaks], dim=1)], order)[0]
