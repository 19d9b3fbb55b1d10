"""Kernel that lists the rows most similar to each row, the first launch of `dedup`.

A program holds a few rows of the Gram in registers and marks the highest of each. It writes these
to memory, 6 bytes a neighbour, and puts each list in order, 32 numbers against each other. The Gram
is read once.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch

from vtprune_kernels._triton import flags, size_class, tl, triton
from vtprune_kernels.ordering import is_in_top_k, ordered_bits

__all__ = ["NEAREST", "nearest_rows"]


NEAREST = 32
"""Neighbours listed for each row. Half of those alive are in b, so the chance that none of 32 is in
b is small until most of them are gone. Not yet swept on a GPU."""

_NEAREST_ELEMENTS = 4096
"""Elements of the Gram that a program of the first launch holds: 32 a thread. Not yet
swept on a GPU."""


def nearest_rows(
    gram: torch.Tensor, valid: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch one program for a few rows of each segment.

    Args:
        gram: `[segments, R, R]` float32, contiguous.
        valid: `[segments, R]` bool, which rows exist; others only fill a list up, anywhere in it.

    Returns:
        Two `[segments, R, min(NEAREST, R)]`: the neighbours' rows, the most similar first, int16,
        and their similarities, float32.
    """
    segments, rows, _ = gram.shape
    nearest = min(NEAREST, rows)
    near_row = gram.new_empty((segments, rows, nearest), dtype=torch.int16)
    near_value = gram.new_empty((segments, rows, nearest), dtype=torch.float32)
    block = size_class(rows)
    rows_at_once = max(1, _NEAREST_ELEMENTS // block)
    _nearest_kernel[(triton.cdiv(rows, rows_at_once), segments)](
        gram,
        flags(valid, gram),
        near_row,
        near_value,
        rows,
        nearest,
        HAS_VALID=valid is not None,
        NEAREST=NEAREST,
        ROWS=rows_at_once,
        BLOCK=block,
        num_warps=4 if block <= 4096 else 16,
    )
    return near_row, near_value


@triton.jit(do_not_specialize=["rows", "nearest"])
def _nearest_kernel(
    gram,
    valid,
    near_row,
    near_value,
    rows,
    nearest,
    HAS_VALID: tl.constexpr,
    NEAREST: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    segment = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    inside = (row < rows) & (column < rows)
    value = tl.load(
        gram + (segment * rows + row) * rows + column, mask=inside, other=0.0
    )  # [ROWS, BLOCK]
    code = tl.where(inside, ordered_bits(value), 0)
    if HAS_VALID:  # padding comes last, so that it never displaces a neighbour
        exists = tl.load(valid + segment * rows + column, mask=column < rows, other=0) != 0
        code = tl.where(exists, code, 0)
    near = is_in_top_k(code, nearest, 32, 1) & inside
    place = (segment * rows + row) * nearest + tl.cumsum(near.to(tl.int32), axis=1) - 1
    tl.store(near_row + place, (column + tl.zeros_like(row)).to(tl.int16), mask=near)
    tl.store(near_value + place, value, mask=near)
    tl.debug_barrier()

    # The lists in order; equals, and what padding left, by their place.
    j = tl.arange(0, NEAREST)
    listed = (row < rows) & (j[None, :] < nearest)
    begin = (segment * rows + row) * nearest
    value = tl.load(near_value + begin + j[None, :], mask=listed, other=-float("inf"))
    which = tl.load(near_row + begin + j[None, :], mask=listed, other=0)
    code = ordered_bits(value)
    rank = tl.zeros([ROWS, NEAREST], dtype=tl.int32)
    for k in tl.static_range(NEAREST):
        read = (row < rows) & (tl.full([ROWS, 1], k, dtype=tl.int32) < nearest)
        other = ordered_bits(tl.load(near_value + begin + k, mask=read, other=-float("inf")))
        rank += ((other > code) | ((other == code) & (k < j[None, :]))).to(tl.int32)
    tl.debug_barrier()
    tl.store(near_row + begin + rank, which, mask=listed)
    tl.store(near_value + begin + rank, value, mask=listed)
