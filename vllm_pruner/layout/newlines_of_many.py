"""`newlines` for images of different layouts in one call: some thirty launches for all of them,
where one layout by itself takes twenty.

Rows, patches and positions of all images are padded to one number each. What is padding has no
position, so its rank changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from vtprune_kernels import top_k_sorted

from vllm_pruner.layout.crop_layout import CropLayout
from vllm_pruner.layout.layout import TABLES
from vllm_pruner.layout.newlines import settled
from vllm_pruner.methods.on_device import on_device, sent

__all__ = ["with_newlines_of_many"]

_LEAD = 2.0**20
"""How far ahead of the others chosen patches rank: more than an image has patches."""

_ALWAYS, _NEVER, _ROWS = range(3)
"""Places in the list of ranks: infinity, minus infinity, then one for each row."""


def with_newlines_of_many(
    chosen: torch.Tensor,
    importance: torch.Tensor,
    keeps: Sequence[int],
    layouts: Sequence[CropLayout],
) -> torch.Tensor:
    """Return the positions of all kept tokens, as `with_newlines` does for each image.

    Args:
        chosen: patches `[images, P]`, -1 where an image's `method_budget` is less than P.
        importance: `[images, N]`, anything beyond an image's patches.
        keeps: of each image, from 1 to all tokens of its layout.
        layouts: of each image; all with rows and columns.

    Returns:
        `[images, most]` int64, ascending, -1 where an image keeps fewer.
    """
    device, length = chosen.device, importance.shape[1]
    patches, rows = (
        1 << (number - 1).bit_length()
        for number in (length, max(layout.height for layout in layouts))
    )
    tables = torch.stack([_table(layout, patches, rows, device) for layout in layouts])
    row_of_patch, places = tables[:, :length], tables[:, patches:]
    falling, ends, lead = _constants(patches, device)
    order = importance.argsort(dim=1, descending=True, stable=True)
    falling = falling[:length].expand_as(order)
    rank = falling.new_empty(len(order), length + 1)  # one more for what is not chosen
    rank.scatter_(1, order, falling).scatter_add_(
        1, chosen.remainder(length + 1), lead.expand_as(chosen)
    )
    first = rank.new_full((len(rank), rows + 1), -math.inf)
    first.scatter_reduce_(1, row_of_patch, rank[:, :length], "amax")
    both = torch.cat([ends.expand(len(rank), -1), first, rank], dim=1).gather(1, places)
    rank, first_of_row = both.chunk(2, dim=1)
    bounds = on_device([(keep - 1, keep) for keep in keeps], device)
    last, next_one = rank.topk(max(keeps) + 1).values.gather(1, bounds).split(1, dim=1)
    rank = settled(rank, first_of_row, last, next_one, layouts[0].base)
    return top_k_sorted(rank, max(keeps), counts=bounds[:, 1])


@lru_cache(maxsize=TABLES)
def _table(layout: CropLayout, patches: int, rows: int, device: torch.device) -> torch.Tensor:
    """Return the row of every patch, `rows` where it has none, `[patches]` int64; then, of
    `patches + rows + 1` positions each, the place of its rank and that of the first patch of its
    row."""
    row_of_patch = torch.full((patches,), rows, device="cpu")
    in_raster = torch.arange(layout.height * layout.width, device="cpu") // layout.width
    row_of_patch[layout.base : layout.patches] = in_raster
    patch, newline = layout.patches_at(torch.arange(layout.tokens, device="cpu"))
    is_base = torch.arange(layout.tokens, device="cpu") < layout.base
    row = (torch.arange(layout.tokens, device="cpu") - layout.base) // (layout.width + 1) + _ROWS
    places = torch.full((2, patches + rows + 1), _NEVER, device="cpu")
    places[0, : layout.tokens] = row.where(newline, patch + _ROWS + rows + 1)
    places[1, : layout.tokens] = row.masked_fill(is_base, _ALWAYS)
    return sent(torch.cat([row_of_patch, places.flatten()]), device)


@lru_cache(maxsize=TABLES)
def _constants(
    patches: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return float32: 0, -1 and so on `[patches]`; both infinities; `_LEAD`."""
    falling = -torch.arange(patches, dtype=torch.float32, device="cpu")
    ends = on_device([math.inf, -math.inf], device, torch.float32)
    return sent(falling, device), ends, on_device([_LEAD], device, torch.float32)
