"""Kernel of `top_k_sorted`, and the selection by bits that other kernels share. It does not sort.

One program holds a row as order-preserving 32-bit integers in registers and finds the k-th highest
one bit by bit, by counting; what lies above it is kept, and of what equals it the first ones, as
many as are missing. A prefix sum then places the kept indices, which is ascending order for
nothing. It reads each score once and writes k indices.

Source: `methods.md` section 6 (K3) has sort or radix select; this is the radix select with a radix
of 2, which needs no histogram.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch

from vtprune_kernels._triton import flags, next_power_of_2, tl, triton

__all__ = ["is_in_top_k", "number_to_keep", "ordered_bits", "top_k_sorted_triton"]


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
        block = next_power_of_2(length)
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


@triton.jit
def ordered_bits(value):
    """Map float32 to uint32 so that integers compare as the numbers do: -inf lowest, NaN highest,
    the two zeros equal."""
    bits = (value + 0.0).to(tl.uint32, bitcast=True)
    bits = tl.where(bits >> 31 == 1, ~bits, bits | 0x80000000)
    return tl.where(value == value, bits, 0xFFFFFFFF)


@triton.jit
def is_in_top_k(code, k, BITS: tl.constexpr, AXIS: tl.constexpr):
    """Mark the `k` highest codes along `AXIS` of a two-dimensional block, ties to the lower index.

    A code of 0 stands for no element: it is taken last.
    """
    # The k-th highest code, built from its highest bit down.
    threshold = tl.zeros_like(tl.max(code, axis=AXIS, keep_dims=True))
    for i in tl.static_range(BITS):
        candidate = threshold | (tl.full([], 1, tl.uint32) << (BITS - 1 - i))
        count = tl.sum((code >= candidate).to(tl.int32), axis=AXIS, keep_dims=True)
        threshold = tl.where(count >= k, candidate, threshold)
    above = code > threshold
    missing = k - tl.sum(above.to(tl.int32), axis=AXIS, keep_dims=True)
    tied = code == threshold
    return above | (tied & (tl.cumsum(tied.to(tl.int32), axis=AXIS) <= missing))


@triton.jit
def number_to_keep(keep, real, counts, segment, HAS_VALID: tl.constexpr, HAS_COUNTS: tl.constexpr):
    """How many rows a segment keeps: `keep`, or fewer where it has or wants fewer."""
    number = keep
    if HAS_VALID:
        number = tl.minimum(number, real)
    if HAS_COUNTS:
        number = tl.minimum(number, tl.maximum(tl.load(counts + segment).to(tl.int32), 0))
    return number


@triton.jit
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
    keep = is_in_top_k(code, number, 32, 1)
    place = tl.cumsum(keep.to(tl.int32), axis=1) - 1
    tl.store(kept + row * k + place, index.to(tl.int64), mask=keep)
    if HAS_VALID or HAS_COUNTS:
        absent = tl.full([1, BLOCK], -1, dtype=tl.int64)
        tl.store(kept + row * k + index, absent, mask=(index >= number) & (index < k))
