"""Kernel that lists the rows most similar to each row, the first launch of `dedup`.

A program holds a few rows of the Gram in registers and marks the highest of each, without sorting.
The Gram is read once, and 6 bytes are written for each neighbour.
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
        valid: `[segments, R]` bool, which rows exist; the others come last in every list.

    Returns:
        Two `[segments, R, min(NEAREST, R)]`: the neighbours' rows in ascending order, int16, and
        their similarities, float32.
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
