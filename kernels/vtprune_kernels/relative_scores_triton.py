"""Kernel of `relative_scores`: one program a row, which reads it twice, the second time from cache.

In torch these are seven launches, each longer than its work.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch

from vtprune_kernels._triton import flags, tl, triton

__all__ = ["relative_scores_triton"]


_BLOCK = 1024
"""Scores handled together. Not yet swept on a GPU."""


def relative_scores_triton(scores: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Launch one program a row."""
    rows, length = scores.shape
    shares = scores.new_empty((rows, length), dtype=torch.float32)
    if shares.numel():
        _relative_scores_kernel[(rows,)](
            scores,
            flags(valid, scores),
            shares,
            scores.stride(0),
            scores.stride(1),
            length,
            HAS_VALID=valid is not None,
            BLOCK=_BLOCK,
            num_warps=4,
        )
    return shares


@triton.jit
def _positive(scores, valid, column, length, step, HAS_VALID: tl.constexpr):
    """Return scores as finite float64, 0 or more; 0 of what does not exist."""
    exists = column < length
    if HAS_VALID:
        exists = tl.load(valid + column, mask=exists, other=0) != 0
    value = tl.load(scores + column.to(tl.int64) * step, mask=exists, other=0.0).to(tl.float64)
    value = tl.where(value > 0.0, value, 0.0)  # NaN is not above 0
    return tl.minimum(value, 1.7976931348623157e308)


@triton.jit(do_not_specialize=["scores_row", "length"])
def _relative_scores_kernel(
    scores,
    valid,
    shares,
    scores_row,
    scores_column,
    length,
    HAS_VALID: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    scores += row * scores_row
    valid += row * length
    highest = tl.zeros([BLOCK], tl.float64)
    for start in range(0, length, BLOCK):
        column = start + tl.arange(0, BLOCK)
        some = _positive(scores, valid, column, length, scores_column, HAS_VALID)
        highest = tl.maximum(highest, some)
    most = tl.maximum(tl.max(highest, axis=0), 7.888609052210118e-31)  # 2**-100
    for start in range(0, length, BLOCK):
        column = start + tl.arange(0, BLOCK)
        some = _positive(scores, valid, column, length, scores_column, HAS_VALID)
        tl.store(shares + row * length + column, (some / most).to(tl.float32), mask=column < length)
