"""Kernel of `ranked`, which counts instead of sorting: the place of a score is the number of scores
that come before it.

All pairs are compared, on as many multiprocessors as there are tiles; a row of some hundred scores
takes less than a launch, and a sort of it in torch is several launches.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch

from vtprune_kernels._triton import flags, tl, triton
from vtprune_kernels.ordering import ordered_bits

__all__ = ["ranked_triton"]


_SCORES, _OTHERS = 16, 64
"""Scores that a program places, and how many others it compares them with at a time. Not yet swept
on a GPU."""


def ranked_triton(scores: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Launch a program for every 16 scores of a row."""
    rows, length = scores.shape
    order = scores.new_empty((rows, length), dtype=torch.int64)
    if order.numel():
        _ranked_kernel[(triton.cdiv(length, _SCORES), rows)](
            scores,
            flags(valid, scores),
            order,
            scores.stride(0),
            scores.stride(1),
            length,
            HAS_VALID=valid is not None,
            SCORES=_SCORES,
            OTHERS=_OTHERS,
            num_warps=4,
        )
    return order


@triton.jit
def _codes(scores, valid, index, length, step, HAS_VALID: tl.constexpr):
    """Return scores as integers that order alike, above 0; 0 of what does not exist."""
    exists = index < length
    if HAS_VALID:
        exists = tl.load(valid + index, mask=exists, other=0) != 0
    score = tl.load(scores + index.to(tl.int64) * step, mask=exists, other=0.0)
    return tl.where(exists, ordered_bits(score.to(tl.float32)), 0)


@triton.jit(do_not_specialize=["scores_row", "length"])
def _ranked_kernel(
    scores,
    valid,
    order,
    scores_row,
    scores_column,
    length,
    HAS_VALID: tl.constexpr,
    SCORES: tl.constexpr,
    OTHERS: tl.constexpr,
):
    row = tl.program_id(1).to(tl.int64)
    scores += row * scores_row
    valid += row * length
    i = tl.program_id(0) * SCORES + tl.arange(0, SCORES)
    code = _codes(scores, valid, i, length, scores_column, HAS_VALID)[:, None]
    before = tl.zeros([SCORES, OTHERS], dtype=tl.int32)
    for start in range(0, length, OTHERS):
        j = start + tl.arange(0, OTHERS)
        other = _codes(scores, valid, j, length, scores_column, HAS_VALID)[None, :]
        earlier = (other == code) & (j[None, :] < i[:, None])
        before += ((other > code) | earlier).to(tl.int32)
    place = tl.sum(before, axis=1)
    tl.store(order + row * length + place, i.to(tl.int64), mask=i < length)
