"""What each row gains before any is taken: the first launch of `greedy_cover_triton`."""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from vtprune_kernels._triton import tl, triton

__all__ = ["ALL", "NOTHING", "first_gains_kernel", "score_of", "stride_of", "write_gain"]


NOTHING = tl.constexpr(0x4B400000)
"""`_units` of a similarity of 0."""
ALL = tl.constexpr(0x4B800000)
"""`_units` of 1, which is the most."""


@triton.jit
def _units(similarity):
    """Count whole multiples of 2**-22 in a similarity, clipped to 1, half to even; from `NOTHING`.

    Adding 1.5 * 2**23 shifts a fraction out and leaves the count in the lowest bits of a float.
    Below -1 the count is not right, but below `NOTHING`.
    """
    shifted = tl.minimum(tl.fma(similarity, 4194304.0, 12582912.0), 16777216.0)
    return shifted.to(tl.int32, bitcast=True)


@triton.jit
def _demand_units(weight):
    """Count whole multiples of 2**-30 in a weight of at most 1; half to even, as in `_units`."""
    scaled = weight.to(tl.float64) * 1073741824.0
    return ((scaled + 6755399441055744.0) - 6755399441055744.0).to(tl.int32)


@triton.jit
def _which_exist(valid, segment, i, rows, HAS_VALID: tl.constexpr):
    exist = i < rows
    if HAS_VALID:
        exist = tl.load(valid + segment * rows + i, mask=exist, other=0) != 0
    return exist


@triton.jit
def score_of(gain, weight):
    """Return what rows compare by: the bits of a float that is not negative, which order as the
    numbers do; -1 of a gain of -1, a row that is not open."""
    # Adding 0.0 makes of -0.0 a zero.
    value = gain.to(tl.float32) * weight + 0.0
    return tl.where(gain < 0, -1, value.to(tl.int32, bitcast=True))


@triton.jit
def stride_of(rows):
    """Return the length of a row of units: whole reads of a warp, 16 bytes a thread."""
    return (rows + 127) // 128 * 128


@triton.jit
def write_gain(place, half, gain, inside):
    """Write gains in two halves, so that the four of a thread are beside each other as units are.

    Args:
        place: of the lower halves; the upper ones are `half` behind them.
    """
    tl.store(place, gain.to(tl.int32), mask=inside)
    tl.store(place + half, (gain >> 32).to(tl.int32), mask=inside)


@triton.jit(do_not_specialize=["segments", "rows"])
def first_gains_kernel(
    gram,
    weight,
    valid,
    unit,
    score,
    cover,
    segments,
    rows,
    OBJECTIVE: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_VALID: tl.constexpr,
    HEIGHT: tl.constexpr,
    WARPS: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    HELD: tl.constexpr,
    LAZY: tl.constexpr,
):
    """Write S in units, `NOTHING` where a row or column does not exist; scores, warp by warp, -1 of
    such rows; and a cover of nothing, behind it the demands in their units. If the selection is not
    lazy, instead of scores the gains, row by row."""
    ASKED: tl.constexpr = OBJECTIVE == "demand" and HAS_WEIGHT
    segment = tl.program_id(1).to(tl.int64)
    stride = stride_of(rows)
    weight += segment * rows
    i = tl.program_id(0) * HEIGHT + tl.arange(0, HEIGHT)
    inside = i < rows
    open_i = _which_exist(valid, segment, i, rows, HAS_VALID)
    row = segment * rows + i[:, None].to(tl.int64)
    total = tl.zeros([HEIGHT, CHUNK], dtype=tl.int64)
    for start in range(0, CHUNK if HELD else rows, CHUNK):
        j = start + tl.arange(0, CHUNK)
        open_j = _which_exist(valid, segment, j, rows, HAS_VALID)
        there = open_i[:, None] & open_j[None, :]
        u = _units(tl.load(gram + row * rows + j[None, :], mask=there, other=0.0))
        written = inside[:, None] & (j < stride)[None, :]
        tl.store(unit + row * stride + j[None, :], u, mask=written)
        more = (tl.maximum(u, NOTHING) - NOTHING).to(tl.int64)
        if ASKED:
            more *= _demand_units(tl.load(weight + j, mask=open_j, other=0.0)).to(tl.int64)[None, :]
        total += more
    at = segment * stride + i
    gain = tl.where(open_i, tl.sum(total, axis=1), -1)
    if LAZY:
        w = tl.full([HEIGHT], 1.0, tl.float32)
        if OBJECTIVE == "coverage" and HAS_WEIGHT:
            w = tl.load(weight + i, mask=open_i, other=0.0)
        place = i % WARPS * (BLOCK // WARPS) + i // WARPS
        tl.store(score + segment * BLOCK + place, score_of(gain, w), mask=i < BLOCK)
    else:
        write_gain(score + at, segments.to(tl.int64) * stride, gain, i < stride)
    tl.store(cover + at, tl.full([HEIGHT], NOTHING, tl.int32), mask=i < stride)
    if ASKED or not LAZY:
        asked = tl.full([HEIGHT], 1, tl.int32)
        if ASKED:
            asked = _demand_units(tl.load(weight + i, mask=open_i, other=0.0))
        tl.store(cover + segments.to(tl.int64) * stride + at, asked, mask=i < stride)
