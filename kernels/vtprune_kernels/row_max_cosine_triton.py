"""Kernel of `row_max_cosine`.

One launch after both sides have been split into limbs: a program takes a tile of rows, runs over
the tiles of targets and keeps the running maximum and its index in registers. It reads 3 bytes for
each channel of every target once for each tile of rows, and writes 12 bytes a row.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch

from vtprune_kernels._triton import flags, tl, triton
from vtprune_kernels.cosine_gram_triton import (
    TILE_CHANNELS,
    cosine_tile,
    tile_of,
    tile_pointers,
    unit_limbs,
)
from vtprune_kernels.segments import end_of

__all__ = ["row_max_cosine_triton"]


def row_max_cosine_triton(
    features: torch.Tensor,
    targets: torch.Tensor | None = None,
    mask: str = "all",
    valid: torch.Tensor | None = None,
    valid_targets: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the split into limbs, once or twice, and the search."""
    shape = features.shape[:2]
    best = features.new_empty(shape, dtype=torch.float32)
    index = features.new_empty(shape, dtype=torch.int64)
    if best.numel() == 0:
        return best, index
    exists = valid if targets is None else valid_targets
    limbs = unit_limbs(features, valid=valid)
    others = limbs if targets is None else unit_limbs(targets, valid=valid_targets)
    tile, warps = tile_of(features.device)
    _row_max_cosine_kernel[(triton.cdiv(features.shape[1], tile), features.shape[0])](
        limbs,
        others,
        best,
        index,
        flags(valid, limbs),
        flags(exists, limbs),
        limbs if exists is None else end_of(exists),
        limbs.stride(0),
        others.stride(0),
        features.shape[1],
        others.shape[2],
        limbs.shape[3],
        MASK=mask,
        HAS_VALID=valid is not None,
        HAS_VALID_TARGETS=exists is not None,
        TILE=tile,
        CHANNELS=TILE_CHANNELS,
        num_warps=warps,
        num_stages=3,
    )
    return best, index


@triton.jit(do_not_specialize=["count", "target_count"])
def _row_max_cosine_kernel(
    limbs,
    others,
    best,
    index,
    valid,
    valid_targets,
    ends,
    plane_i,
    plane_j,
    count,
    target_count,
    padded,
    MASK: tl.constexpr,
    HAS_VALID: tl.constexpr,
    HAS_VALID_TARGETS: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    segment = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * TILE + tl.arange(0, TILE)
    limbs_i = tile_pointers(limbs, segment, i, count, padded, CHANNELS)
    highest = tl.full([TILE], -float("inf"), dtype=tl.float32)
    place = tl.full([TILE], -1, dtype=tl.int32)
    real_i = i < count
    if HAS_VALID:
        real_i = tl.load(valid + segment * count + i, mask=i < count, other=0) != 0
    end = target_count
    if HAS_VALID_TARGETS:
        end = tl.load(ends + segment)
    if MASK == "before":  # later tiles hold no target that a row of this one is allowed
        end = tl.minimum(end, (tl.program_id(0) + 1) * TILE)
    for start in range(0, end, TILE):
        j = start + tl.arange(0, TILE)
        limbs_j = tile_pointers(others, segment, j, target_count, padded, CHANNELS)
        cosine = cosine_tile(limbs_i, limbs_j, plane_i, plane_j, padded, TILE, CHANNELS)
        real_j = j < target_count
        if HAS_VALID_TARGETS:
            at_j = valid_targets + segment * target_count + j
            real_j = tl.load(at_j, mask=j < target_count, other=0) != 0
        allowed = real_j[None, :] & real_i[:, None]
        if MASK == "before":
            allowed &= j[None, :] < i[:, None]
        if MASK == "opposite":
            allowed &= ((i[:, None] + j[None, :]) & 1) == 1
        cosine = tl.where(allowed, cosine, -float("inf"))
        value = tl.max(cosine, axis=1)
        first = tl.min(tl.where(cosine == value[:, None], j[None, :], 2147483647), axis=1)
        # Strictly greater: an equal value in a later tile has a higher index.
        place = tl.where(value > highest, first, place)
        highest = tl.maximum(highest, value)
    at = segment * count + i
    tl.store(best + at, highest, mask=i < count)
    tl.store(index + at, place.to(tl.int64), mask=i < count)
