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

__all__ = ["is_in_top_k", "number_to_keep", "ordered_bits"]


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

    A code of 0 marks a place without an element, which comes last.
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
