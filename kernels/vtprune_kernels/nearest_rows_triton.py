"""Kernel that lists the rows most similar to each row, the first launch of `dedup`.

A program holds a row of the Gram in registers and finds its 32nd highest. It writes where these are
to memory and puts the list in order, 32 numbers against each other. The Gram is read once.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch

from vtprune_kernels._triton import flags, size_class, tl, triton
from vtprune_kernels.ordering import kth_highest, ordered_bits

__all__ = ["NEAREST", "nearest_rows"]


NEAREST = 32
"""Neighbours listed for each row. Half of those alive are in b, so the chance that none of 32 is in
b is small until most of them are gone. Not yet swept on a GPU."""

_ROWS = 1
"""Rows that a program looks at, at once. Tests have one program look at many."""

_ELEMENTS_A_WARP = 1024
"""Elements of the Gram that a warp holds, 32 a thread. Up to so many, a program is one warp, which
counts without a barrier. Not yet swept on a GPU."""


def nearest_rows(
    gram: torch.Tensor, valid: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch one program a row.

    Args:
        gram: `[segments, R, R]` float32, contiguous.
        valid: `[segments, R]` bool, which rows exist.

    Returns:
        Two `[segments, R, NEAREST]`: the other rows that exist, the most similar first, int16, and
        their similarities, float32. If these are too few, the row itself and -inf fill the list up.
    """
    segments, rows, _ = gram.shape
    near_rows = gram.new_empty((segments, rows, NEAREST), dtype=torch.int16)
    near_values = gram.new_empty((segments, rows, NEAREST), dtype=torch.float32)
    block = size_class(rows)
    _nearest_kernel[(triton.cdiv(rows, _ROWS), segments)](
        gram,
        flags(valid, gram),
        near_rows,
        near_values,
        rows,
        HAS_VALID=valid is not None,
        NEAREST=NEAREST,
        ROWS=_ROWS,
        BLOCK=block,
        num_warps=max(1, block // _ELEMENTS_A_WARP),
    )
    return near_rows, near_values


@triton.jit(do_not_specialize=["rows"])
def _nearest_kernel(
    gram,
    valid,
    near_rows,
    near_values,
    rows,
    HAS_VALID: tl.constexpr,
    NEAREST: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    segment = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    inside = (row < rows) & (column < rows) & (column != row)
    if HAS_VALID:
        inside &= tl.load(valid + segment * rows + column, mask=column < rows, other=0) != 0
    begin = gram + (segment * rows + row) * rows
    value = tl.load(begin + column, mask=inside, other=0.0)  # [ROWS, BLOCK]
    code = tl.where(inside, ordered_bits(value), 0)

    # Those above the 32nd highest come first, then its equals until the list is full.
    threshold = kth_highest(code, NEAREST)
    above, equal = code > threshold, inside & (code == threshold)
    both = tl.cumsum(above.to(tl.int32) + (equal.to(tl.int32) << 16), axis=1)
    number_above = tl.sum(above.to(tl.int32), axis=1, keep_dims=True)
    number_equal = tl.sum(equal.to(tl.int32), axis=1, keep_dims=True)
    place = tl.where(above, both & 0xFFFF, number_above + (both >> 16)) - 1
    near_rows += (segment * rows + row) * NEAREST
    tl.store(near_rows + place, column.to(tl.int16), mask=(above | equal) & (place < NEAREST))
    tl.debug_barrier()

    # The list in order, equals by their place; filled up with the row itself.
    i = tl.arange(0, NEAREST)[None, :]
    listed = (row < rows) & (i < number_above + number_equal)
    which = tl.load(near_rows + i, mask=listed, other=0).to(tl.int32)
    value = tl.load(begin + which, mask=listed, other=-float("inf"))  # [ROWS, NEAREST]
    near_values += (segment * rows + row) * NEAREST
    tl.store(near_values + i, value, mask=(row < rows) & (i < NEAREST))
    tl.debug_barrier()
    code = ordered_bits(value)  # NaN too, of rows that do not exist, has a place
    rank = tl.zeros([ROWS, NEAREST], dtype=tl.int32)
    for j in tl.static_range(NEAREST):
        other = ordered_bits(tl.load(near_values + j, mask=row < rows, other=0.0))
        rank += ((other > code) | ((other == code) & (j < i))).to(tl.int32)
    tl.debug_barrier()
    tl.store(near_rows + rank, tl.where(listed, which, row).to(tl.int16), mask=row < rows)
    tl.store(near_values + rank, value, mask=row < rows)
