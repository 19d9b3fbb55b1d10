"""Pool: the grid of tokens cut into as many equal parts as are kept, each averaged.

The baseline for whether selection beats a coarser grid; reviewers of UniPruneBench asked for it.

    bands  = about sqrt(T * rows / columns) ranges of rows, as equal as whole rows allow
    cells  = each band cut into its share of the T cells, as equal as whole columns allow
    row_i  = mean of the features in cell i, in place of the cell's middle token

For T = rows * columns / n^2 these are the n x n blocks of average pooling (24 x 24 tokens: 64 is
3 x 3, 144 is 2 x 2, 36 is 4 x 4). For any other T there are exactly T cells that cover the grid
without overlap, of nearly equal size.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from vllm_pruner.methods.base import Kept, Method, Need, Options, VisualTokens
from vllm_pruner.methods.merge import mix
from vllm_pruner.methods.on_device import on_device

__all__ = ["POOL"]


def select(tokens: VisualTokens, keep: int, options: Options) -> Kept:
    """Return `[images, keep]` indices and rows; see `Method.select`."""
    assert tokens.grid is not None
    images, total, width = tokens.features.shape
    device = tokens.features.device
    middles, cell_of_token = (on_device(each, device) for each in _cells(*tokens.grid, keep))
    index = middles.expand(images, keep)
    if keep == 0:
        return Kept(index, tokens.features[:, :0])
    member = (cell_of_token == torch.arange(keep, device=device).unsqueeze(1)).double()
    mean = mix(member.expand(images, keep, total), tokens.features)
    mean = mean / member.sum(dim=1, keepdim=True)
    return Kept(index, mean.to(tokens.features.dtype).view(images, keep, width))


@lru_cache(maxsize=64)
def _cells(rows: int, columns: int, keep: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the middle token of each cell, and the cell of each token."""
    if keep == 0:
        return (), ()
    fewest, most = -(-keep // columns), min(rows, keep)
    bands = min(most, max(fewest, round((keep * rows / columns) ** 0.5)))
    middles: list[int] = []
    cells = [0] * (rows * columns)
    for band in range(bands):
        top, bottom = (edge * rows // bands for edge in (band, band + 1))
        count = (band + 1) * keep // bands - band * keep // bands
        for part in range(count):
            left, right = (edge * columns // count for edge in (part, part + 1))
            for row in range(top, bottom):
                start = row * columns
                cells[start + left : start + right] = [len(middles)] * (right - left)
            middles.append((top + bottom - 1) // 2 * columns + (left + right - 1) // 2)
    return tuple(middles), tuple(cells)


POOL = Method("pool", select, needs=frozenset({Need.GRID}), merges=True)
