"""Device functions for ranking: floats as ordered integers, and the k highest of them.

The k-th highest of the 32-bit integers is found bit by bit, by counting. Everything above it is
kept, then the first of its equals until there are k.

Source: `methods.md` section 6 (K3) suggests a sort or a radix select; this is a radix select with a
radix of 2, which needs no histogram.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from vtprune_kernels._triton import tl, triton

__all__ = ["float_of_ordered_bits", "is_in_top_k", "kth_highest", "number_to_keep", "ordered_bits"]


@triton.jit
def ordered_bits(value):
    """Map float32 to uint32 so that integers compare as the numbers do: -inf lowest, NaN highest,
    the two zeros equal."""
    bits = (value + 0.0).to(tl.uint32, bitcast=True)
    bits = tl.where(bits >> 31 == 1, ~bits, bits | 0x80000000)
    return tl.where(value == value, bits, 0xFFFFFFFF)


@triton.jit
def float_of_ordered_bits(code):
    """The number, other than NaN, of a code of `ordered_bits`."""
    bits = tl.where(code >> 31 == 1, code & 0x7FFFFFFF, ~code)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def kth_highest(code, k):
    """Of each row of a block, a code that at least `k` are not below, and fewer than `k` above.

    Built from its highest bit down, until in every row exactly `k` are not below it.
    """
    threshold = tl.zeros_like(tl.max(code, axis=1, keep_dims=True))
    settled = threshold > 0
    bit = tl.full([], 1 << 31, tl.uint32)
    while bit > 0:
        candidate = threshold | bit
        count = tl.sum((code >= candidate).to(tl.int32), axis=1, keep_dims=True)
        threshold = tl.where(count >= k, candidate, threshold)
        settled |= count == k
        bit = tl.where(tl.min(settled.to(tl.int32)) > 0, 0, bit >> 1)
    return threshold


@triton.jit
def is_in_top_k(code, k):
    """Mark the `k` highest codes of each row of a block, ties to the lower index.

    A code of 0 marks a place without an element, which comes last.
    """
    threshold = kth_highest(code, k)
    above = code > threshold
    missing = k - tl.sum(above.to(tl.int32), axis=1, keep_dims=True)
    tied = code == threshold
    return above | (tied & (tl.cumsum(tied.to(tl.int32), axis=1) <= missing))


@triton.jit
def number_to_keep(keep, real, counts, segment, HAS_VALID: tl.constexpr, HAS_COUNTS: tl.constexpr):
    """How many rows a segment keeps: `keep`, or fewer where it has or wants fewer."""
    number = keep
    if HAS_VALID:
        number = tl.minimum(number, real)
    if HAS_COUNTS:
        number = tl.minimum(number, tl.maximum(tl.load(counts + segment).to(tl.int32), 0))
    return number
