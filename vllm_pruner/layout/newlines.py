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

import torch
from vtprune_kernels import top_k_sorted

from vllm_pruner.layout.crop_layout import CropLayout

__all__ = ["method_budget", "with_newlines"]


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
    if layout.width == 0:
        newlines = torch.arange(layout.base, layout.base + keep, device=chosen.device)
        rest = newlines[: keep - chosen.shape[1]].expand(len(chosen), -1)
        return torch.cat([chosen, rest], dim=1)
    kept = _fill(_order(chosen, importance), keep, layout)
    base, raster = kept[:, : layout.base], kept[:, layout.base :]
    raster = raster.unflatten(1, (layout.height, layout.width))
    raster = torch.cat([raster, raster.any(dim=2, keepdim=True)], dim=2)
    return top_k_sorted(torch.cat([base, raster.flatten(1)], dim=1).float(), keep)


def _order(chosen: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
    """Return all patches of each image: the chosen ones, then the others, each by importance."""
    others = torch.ones(importance.shape, dtype=torch.int8, device=chosen.device)
    others.scatter_(1, chosen, 0)
    order = importance.argsort(dim=1, descending=True, stable=True)
    return order.gather(1, others.gather(1, order).argsort(dim=1, stable=True))


def _fill(order: torch.Tensor, keep: int, layout: CropLayout) -> torch.Tensor:
    """Return a mask `[images, patches]` of the patches that fit, taken in order."""
    place = torch.arange(layout.patches, device=order.device).expand_as(order)
    place_of = torch.empty_like(order).scatter_(1, order, place)
    rows = place_of[:, layout.base :].unflatten(1, (layout.height, layout.width))
    # The first patch of a row, in this order, brings its newline.
    first_of_row = rows.amin(dim=2)
    cost = torch.ones_like(order).scatter_add_(1, first_of_row, torch.ones_like(first_of_row))
    used = cost.cumsum(dim=1)
    fits = used <= keep
    end = fits.sum(dim=1, keepdim=True)
    left = keep - (cost * fits).sum(dim=1, keepdim=True)
    # At most one place is left: the next patch would bring a newline.
    is_base = order < layout.base
    present = (first_of_row < end).repeat_interleave(layout.width, dim=1)
    cheap = torch.cat([torch.ones_like(is_base[:, : layout.base]), present], dim=1)
    filler = place.where(~fits & cheap.gather(1, order), layout.patches).amin(1, keepdim=True)
    stuck = filler == layout.patches
    last_of_base = place.where(fits & is_base, -1).amax(dim=1, keepdim=True)
    added = place == torch.where(stuck, end, filler)
    dropped = stuck & (place == last_of_base)
    taken = torch.where(left == 1, fits & ~dropped | added, fits)
    return taken.gather(1, place_of)
