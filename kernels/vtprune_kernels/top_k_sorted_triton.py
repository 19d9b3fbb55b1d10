"""Kernel of `top_k_sorted`, which does not sort.

One program holds a row in registers and marks its `k` highest (`ordering.is_in_top_k`). A prefix
sum then places the kept indices, in ascending order for free. Each score is read once, and k
indices are written.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch

from vtprune_kernels._triton import flags, size_class, tl, triton
from vtprune_kernels.ordering import is_in_top_k, number_to_keep, ordered_bits

__all__ = ["top_k_sorted_triton"]


def top_k_sorted_triton(
    scores: torch.Tensor,
    k: int,
    valid: torch.Tensor | None = None,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Launch one program a row."""
    rows, length = scores.shape
    kept = scores.new_empty((rows, k), dtype=torch.int64)
    if kept.numel():
        block = size_class(length)
        _top_k_sorted_kernel[(rows,)](
            scores,
            kept,
            flags(valid, scores),
            scores if counts is None else counts.contiguous(),
            scores.stride(0),
            scores.stride(1),
            length,
            k,
            HAS_VALID=valid is not None,
            HAS_COUNTS=counts is not None,
            BLOCK=block,
            num_warps=min(16, max(1, block // 256)),
        )
    return kept


@triton.jit(do_not_specialize=["scores_row", "length", "k"])
def _top_k_sorted_kernel(
    scores,
    kept,
    valid,
    counts,
    scores_row,
    scores_column,
    length,
    k,
    HAS_VALID: tl.constexpr,
    HAS_COUNTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    index = tl.arange(0, BLOCK)[None, :]
    inside = index < length
    exists = inside
    if HAS_VALID:
        exists = tl.load(valid + row * length + index, mask=inside, other=0) != 0
    score = tl.load(
        scores + row * scores_row + index.to(tl.int64) * scores_column, mask=exists, other=0.0
    )
    # Every float has a code above 0 (that of -inf is 0x007FFFFF), so padding is never kept.
    code = tl.where(exists, ordered_bits(score.to(tl.float32)), 0)
    real = tl.sum(exists.to(tl.int32))
    number = number_to_keep(k, real, counts, row, HAS_VALID, HAS_COUNTS)
    keep = is_in_top_k(code, number)
    place = tl.cumsum(keep.to(tl.int32), axis=1) - 1
    tl.store(kept + row * k + place, index.to(tl.int64), mask=keep)
    if HAS_VALID or HAS_COUNTS:
        absent = tl.full([1, BLOCK], -1, dtype=tl.int64)
        tl.store(kept + row * k + index, absent, mask=(index >= number) & (index < k))
