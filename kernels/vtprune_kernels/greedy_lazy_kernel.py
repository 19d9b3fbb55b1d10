"""The lazy selection itself: the second launch of `greedy_cover_triton`, which says how it works.

A part is a warp's: of tiles `[deep, part, lane]` a thread holds one lane of one part, so what ranks
and adds within a part passes between threads of a warp alone, and the parts meet once a round.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"

from __future__ import annotations

from vtprune_kernels._triton import tl, triton
from vtprune_kernels.greedy_cover_kernels import ALL, NOTHING, stride_of
from vtprune_kernels.ordering import number_to_keep

__all__ = ["lazy_cover_kernel"]


@triton.jit
def _score(gain, weight):
    """Return what rows compare by: the bits of a float that is not negative, which order as the
    numbers do. A gain of -1 is a row that is not open."""
    # Adding 0.0 makes of -0.0 a zero.
    value = gain.to(tl.float32) * weight + 0.0
    return tl.where(gain < 0, -1, value.to(tl.int32, bitcast=True))


@triton.jit
def _highest(score, mark):
    """Of the highest scores, return the lowest mark in each part, `[parts, 1]`, and in all; of a
    part without an open row 0x7FFFFFFF. Both are one number, so that the threads meet once."""
    both = (score.to(tl.int64) << 32) | (0x7FFFFFFF - mark).to(tl.int64)
    of_part = tl.max(both, axis=1, keep_dims=True)
    of_all = tl.max(tl.max(of_part, axis=0), axis=0)
    mark = tl.where(of_part < 0, 0x7FFFFFFF, 0x7FFFFFFF - of_part.to(tl.int32))
    return mark, 0x7FFFFFFF - of_all.to(tl.int32)


@triton.jit
def _read_cover(cover, lane, start, stride, CHUNK: tl.constexpr):
    """Return the cover from column `start` on: a tuple of `[parts, 128]`."""
    covered = ()
    for each in tl.static_range(CHUNK // 128):
        column = start + each * 128 + lane
        covered = covered + (tl.load(cover + column, mask=column < stride, other=ALL),)
    return covered


@triton.jit
def _write_cover(cover, covered, lane, part, start, stride, CHUNK: tl.constexpr):
    """Leave it to the rounds that come: once, since all parts have the same."""
    for each in tl.static_range(CHUNK // 128):
        column = start + each * 128 + lane
        tl.store(cover + column, covered[each], mask=(column < stride) & (part == 0))


@triton.jit
def _raised(covered, row_p, start, stride, CHUNK: tl.constexpr):
    """Return the cover with row p, which changes nothing the second time."""
    above = ()
    for each in tl.static_range(CHUNK // 128):
        # Past the end stand copies of the last columns, where all is covered.
        u = tl.load(row_p + tl.minimum(start + each * 128, stride - 128))
        above = above + (tl.maximum(covered[each], u),)
    return above


@triton.jit
def _gained(covered, row_c, claim, start, stride, ASKED: tl.constexpr, CHUNK: tl.constexpr):
    """Return what the rows c gain above the cover, by lane: `[parts, 128]`."""
    more = tl.zeros(covered[0].shape, tl.int64 if ASKED else tl.int32)
    for each in tl.static_range(CHUNK // 128):
        column = tl.minimum(start + each * 128, stride - 128)
        gained = tl.maximum(tl.load(row_c + column), covered[each]) - covered[each]
        if ASKED:
            more += gained.to(tl.int64) * tl.load(claim + column).to(tl.int64)
        else:
            more += gained
    return more


@triton.jit(do_not_specialize=["segments", "rows", "keep"])
def lazy_cover_kernel(
    weight,
    counts,
    unit,
    gain,
    cover,
    kept,
    segments,
    rows,
    keep,
    OBJECTIVE: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_COUNTS: tl.constexpr,
    FILLS: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    ASKED: tl.constexpr = OBJECTIVE == "demand" and HAS_WEIGHT
    HELD: tl.constexpr = BLOCK == CHUNK
    LENGTH: tl.constexpr = BLOCK // PARTS
    # Once a row is taken, 1,024 columns gain less than 2**32 in all.
    WHOLE: tl.constexpr = tl.uint32 if OBJECTIVE == "coverage" and HELD else tl.int64
    segment = tl.program_id(0).to(tl.int64)
    stride = stride_of(rows)
    unit += segment * rows * stride
    weight += segment * rows
    claim = cover + (segments.to(tl.int64) + segment) * stride
    cover += segment * stride
    part = tl.arange(0, PARTS)[:, None]
    column = tl.arange(0, LENGTH)[None, :]
    i = column * PARTS + part  # so that all parts have rows
    gain += segment * BLOCK + part * LENGTH + column
    lane = tl.arange(0, 128)[None, :] + part * 0

    # 1. All gains are exact, nothing is taken, nothing is covered but what is not there.
    gains = tl.load(gain, mask=i < rows, other=-1)
    w = tl.full([PARTS, LENGTH], 1.0, tl.float32)
    if OBJECTIVE == "coverage" and HAS_WEIGHT:
        w = tl.load(weight + i, mask=i < rows, other=0.0)
    score = _score(gains, w)
    stale = tl.zeros([PARTS, LENGTH], tl.int32)
    real = tl.sum(tl.sum((gains >= 0).to(tl.int32), axis=1), axis=0)
    number = number_to_keep(keep, real, counts, segment, True, HAS_COUNTS)
    covered = ()
    for each in tl.static_range(CHUNK // 128):
        covered = covered + (tl.where(each * 128 + lane < rows, NOTHING, ALL),)

    taken, p = 0, 0
    while taken < number:
        # 2. The highest of each part, and of all; a mark is a row and whether its score is stale.
        mark, best = _highest(score, i * 2 + stale)
        takes = (best & 1) == 0
        p = tl.where(takes, best >> 1, p)
        score = tl.where(i == p, -1, score)
        stale = tl.where(takes, 1, stale)
        taken += tl.where(takes, 1, 0)
        # 3. The cover with the last row taken, and what each part's row gains above it.
        c = tl.minimum(mark >> 1, rows - 1)
        row_p = unit + p.to(tl.int64) * stride + lane
        row_c = unit + c.to(tl.int64) * stride + lane
        total = tl.zeros([PARTS, 128], WHOLE)
        for start in range(0, CHUNK if HELD else rows, CHUNK):
            if not HELD:
                covered = _read_cover(cover, lane, start, stride, CHUNK)
            covered = _raised(covered, row_p, start, stride, CHUNK)
            total += _gained(covered, row_c, claim + lane, start, stride, ASKED, CHUNK).to(WHOLE)
            if not HELD:
                _write_cover(cover, covered, lane, part, start, stride, CHUNK)
        if not HELD:
            tl.debug_barrier()
        # 4. Their scores are exact, if anything is open there.
        w_c = tl.full([PARTS, 1], 1.0, tl.float32)
        if OBJECTIVE == "coverage" and HAS_WEIGHT:
            w_c = tl.load(weight + c, mask=mark < 0x7FFFFFFF, other=0.0)
        found = _score(tl.sum(total, axis=1, keep_dims=True), w_c)
        renewed = (i == c) & (score >= 0)
        score = tl.where(renewed, found, score)
        stale = tl.where(renewed, 0, stale)

    # 5. In raster order.
    exists = tl.load(gain, mask=i < rows, other=-1) >= 0
    chosen = tl.reshape(tl.trans(((score < 0) & exists).to(tl.int32)), [BLOCK])
    place = tl.cumsum(chosen, axis=0) - 1
    row = tl.arange(0, BLOCK)
    tl.store(kept + segment * keep + place, row.to(tl.int64), mask=chosen != 0)
    if FILLS:
        absent = tl.full([BLOCK], -1, dtype=tl.int64)
        tl.store(kept + segment * keep + row, absent, mask=(row >= number) & (row < keep))
