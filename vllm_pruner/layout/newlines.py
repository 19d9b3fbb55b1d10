"""Spend the budget of an image whose rows end in newline tokens.

A newline marks the end of a row of the raster, so it is kept if and only if a patch of its row is.
The number of such rows depends on the content; the number of kept tokens must not. With a budget of
K tokens and a raster of R rows:

    1. The method chooses P = max(K - R, floor(K / 2)) patches. Whatever rows they are in, they fit
       together with their newlines: P + min(P, R) <= K.
    2. The remaining places go to the other patches in order of importance, each with its newline if
       its row has none yet, until the next one does not fit.
    3. If one place remains, the most important patch of the base crop or of a kept row takes it. If
       all of those are kept already, the least important patch of the base crop is dropped, and a
       patch and its newline take the two places.

This keeps exactly K, for every K from 1 to all. It costs a newline for every kept row, and below
K = 2 R up to half of the budget is filled by importance instead of by the method. A patch that the
method chose is dropped only in the last case of step 3, in which nearly everything is kept.

A raster without columns (a picture a hundred times as high as wide, all of it cut off as padding)
consists of newlines: the first of them fill what the base crop leaves of the budget.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from vtprune_kernels import top_k_sorted

from vllm_pruner.layout.crop_layout import CropLayout
from vllm_pruner.layout.layout import TABLES
from vllm_pruner.methods.on_device import sent

__all__ = ["method_budget", "settled", "with_newlines"]

_FAR = 2.0**24
"""Beyond every rank. Float32 holds the integers up to it exactly."""


def method_budget(keep: int, layout: CropLayout) -> int:
    """Return P, the number of patches that the method may choose if `keep` tokens are kept."""
    if layout.width == 0:
        return min(keep, layout.patches)
    return max(keep - layout.height, keep // 2)


def with_newlines(
    chosen: torch.Tensor, importance: torch.Tensor, keep: int, layout: CropLayout
) -> torch.Tensor:
    """Return the positions of all kept tokens, without a host sync.

    Args:
        chosen: patches `[images, P]`, with P from `method_budget`.
        importance: `[images, patches]`.
        keep: K, from 1 to all tokens of the layout.
        layout: the layout that all images share.

    Returns:
        `[images, keep]` int64, ascending.
    """
    if layout.height == 0:
        return chosen
    if keep == layout.tokens:
        return torch.arange(keep, device=chosen.device).expand(len(chosen), -1)
    if layout.width == 0:
        newlines = torch.arange(layout.base, layout.base + keep, device=chosen.device)
        rest = newlines[: keep - chosen.shape[1]].expand(len(chosen), -1)
        return torch.cat([chosen, rest], dim=1)
    rank, first_of_row = _ranks(chosen, importance, layout)
    # A newline ranks as the first patch of its row. If the last place falls between the two, one
    # place is left.
    last, next_one = rank.topk(keep + 1).values[:, -2:].split(1, dim=1)
    return top_k_sorted(settled(rank, first_of_row, last, next_one, layout.base), keep)


def settled(
    rank: torch.Tensor,
    first_of_row: torch.Tensor,
    last: torch.Tensor,
    next_one: torch.Tensor,
    base: int,
) -> torch.Tensor:
    """Return `[images, tokens]`, ranks of which the highest are kept, however the last place falls;
    see step 3 above.

    Args:
        rank: see `_ranks`.
        first_of_row: the same.
        last: `[images, 1]`, the rank that would take the last place.
        next_one: `[images, 1]`, the one after it: the same if a place is left.
        base: patches of the base crop.
    """
    cheap = (rank < last) & (first_of_row > last)  # not kept, and brings no newline
    filler = rank.where(cheap, -math.inf).amax(dim=1, keepdim=True)
    stuck = filler == -math.inf
    # All of the base crop is kept then.
    moved = torch.where(stuck, rank[:, :base].amin(dim=1, keepdim=True), filler)
    is_moved = (rank == moved) & (last == next_one)
    return torch.where(is_moved, torch.where(stuck, -_FAR, _FAR), rank)


def _ranks(
    chosen: torch.Tensor, importance: torch.Tensor, layout: CropLayout
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `[images, tokens]` float32 each, for every position: its rank, and that of the first
    patch of its row; infinite for the base crop, which has no newlines.

    Higher ranks are taken first: the chosen patches, then the others, each by importance. All
    patches of an image have different ones.
    """
    tables = _tables(layout, chosen.device)
    order = importance.argsort(dim=1, descending=True, stable=True)
    falling = tables.falling.expand_as(order)
    rank = torch.empty_like(falling).scatter_(1, order, falling)
    rank.scatter_add_(1, chosen, tables.lead.expand_as(chosen))
    first = rank[:, layout.base :].unflatten(1, (layout.height, layout.width)).amax(dim=2)
    of_either = torch.cat([rank, first, tables.always.expand(len(rank), 1)], dim=1)
    both = of_either.index_select(1, tables.places)
    return both[:, : layout.tokens], both[:, layout.tokens :]


class _Tables(NamedTuple):
    """What follows from a layout alone."""

    falling: torch.Tensor
    """`[patches]` float32: 0, -1 and so on."""

    lead: torch.Tensor
    """`[1]` float32, how far ahead of the others chosen patches are: more than there are others."""

    always: torch.Tensor
    """`[1]` float32, infinity."""

    places: torch.Tensor
    """`[2 * tokens]` int64, the places of what `_ranks` returns in a list of all patches, all rows,
    and infinity."""


@lru_cache(maxsize=TABLES)
def _tables(layout: CropLayout, device: torch.device) -> _Tables:
    patches, newline = layout.patches_at(torch.arange(layout.tokens, device="cpu"))
    in_raster = torch.arange(layout.tokens, device="cpu") - layout.base
    row = layout.patches + in_raster // (layout.width + 1)
    row_or_none = row.where(in_raster >= 0, layout.patches + layout.height)
    places = torch.cat([row.where(newline, patches), row_or_none])
    falling = -torch.arange(layout.patches, dtype=torch.float32, device="cpu")
    lead = torch.full((1,), float(layout.patches), device="cpu")
    always = torch.full((1,), math.inf, device="cpu")
    return _Tables(*(sent(each, device) for each in (falling, lead, always, places)))
