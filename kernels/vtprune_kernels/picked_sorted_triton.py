"""Kernel of `picked_sorted`, which counts as that of `ranked` does: the place of a picked index is
the number of lower ones that are picked."""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch

from vtprune_kernels._triton import tl, triton

__all__ = ["picked_sorted_triton"]


_PICKED, _OTHERS = 16, 64
"""Entries that a program places, and how many others it compares them with at a time. Not yet swept
on a GPU."""


def picked_sorted_triton(
    order: torch.Tensor,
    first: int,
    places: torch.Tensor,
    keep: int,
    firsts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Launch a program for every 16 entries that may be picked."""
    segments, length = order.shape
    more = places.shape[1]
    kept = order.new_empty((segments, keep))
    if kept.numel():
        _picked_sorted_kernel[(triton.cdiv(first + more, _PICKED), segments)](
            order.contiguous(),
            places.contiguous(),
            order if firsts is None else firsts.contiguous(),
            kept,
            length,
            first,
            more,
            keep,
            HAS_FIRSTS=firsts is not None,
            PICKED=_PICKED,
            OTHERS=_OTHERS,
            num_warps=4,
        )
    return kept


@triton.jit
def _index_of(order, places, entry, first, begin, more):
    """Return the index of an entry, -1 if it is not picked.

    Args:
        order: the ranking of the segment.
        places: of its later entries.
        entry: which of those that may be picked: `first` at the beginning, then the later ones.
        first: bound of `begin`.
        begin: how many at the beginning are picked.
        more: number of later ones.
    """
    later = entry - first
    place = tl.load(places + later, mask=(later >= 0) & (later < more), other=-1).to(tl.int32)
    picked = tl.where(later < 0, entry < begin, place >= 0)
    at = tl.where(later < 0, entry, begin + place)
    return tl.load(order + at, mask=picked, other=-1).to(tl.int32)


@triton.jit(
    do_not_specialize=["length", "first", "more", "keep"],
    do_not_specialize_on_alignment=["order", "places", "firsts"],  # they may begin anywhere
)
def _picked_sorted_kernel(
    order,
    places,
    firsts,
    kept,
    length,
    first,
    more,
    keep,
    HAS_FIRSTS: tl.constexpr,
    PICKED: tl.constexpr,
    OTHERS: tl.constexpr,
):
    segment = tl.program_id(1).to(tl.int64)
    order += segment * length
    places += segment * more
    kept += segment * keep
    begin = first
    if HAS_FIRSTS:
        begin = tl.load(firsts + segment).to(tl.int32)
    entry = tl.program_id(0) * PICKED + tl.arange(0, PICKED)
    index = _index_of(order, places, entry, first, begin, more)
    lower = tl.zeros([PICKED, OTHERS], dtype=tl.int32)
    exist = tl.zeros([OTHERS], dtype=tl.int32)
    for start in range(0, first + more, OTHERS):
        other = _index_of(order, places, start + tl.arange(0, OTHERS), first, begin, more)
        lower += ((other >= 0)[None, :] & (other[None, :] < index[:, None])).to(tl.int32)
        exist += (other >= 0).to(tl.int32)
    place = tl.sum(lower, axis=1)
    number = tl.sum(exist, axis=0)
    tl.store(kept + place, index.to(tl.int64), mask=(index >= 0) & (place < keep))
    absent = tl.full([PICKED], -1, dtype=tl.int64)
    tl.store(kept + entry, absent, mask=(entry >= number) & (entry < keep))
