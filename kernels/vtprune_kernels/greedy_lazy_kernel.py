"""The lazy selection itself: the second launch of `greedy_cover_triton`, which says how it works.

Each warp has some parts of the rows, one of each group, and a row of each tile: `[warps, length]`
for the rows of a part, `[warps, 128]` for columns. So what ranks and adds within a part passes
between the threads of a warp alone, and warps meet once a round. Tuples are for groups and chunks
of columns: in three dimensions Triton 3.6 and 3.9 give the warps to different ones.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, misc"

from __future__ import annotations

from vtprune_kernels._triton import tl, triton
from vtprune_kernels.greedy_cover_kernels import ALL, NOTHING, score_of, stride_of
from vtprune_kernels.ordering import number_to_keep

__all__ = ["lazy_cover_kernel"]


@triton.jit
def _highest(score, mark):
    """Return the highest score of each warp's part and the lowest mark that has it, `[warps, 1]`,
    as one number, so that the threads meet once; negative if no row is open."""
    both = (score.to(tl.int64) << 32) | (0x7FFFFFFF - mark).to(tl.int64)
    return tl.max(both, axis=1, keep_dims=True)


@triton.jit
def _mark_of(highest):
    return 0x7FFFFFFF - highest.to(tl.int32)


@triton.jit
def _read_cover(cover, lane, start, stride, CHUNK: tl.constexpr):
    """Return the cover from column `start` on: a tuple of `[warps, 128]`."""
    covered = ()
    for each in tl.static_range(CHUNK // 128):
        column = start + each * 128 + lane
        covered = covered + (tl.load(cover + column, mask=column < stride, other=ALL),)
    return covered


@triton.jit
def _write_cover(cover, covered, lane, warp, start, stride, CHUNK: tl.constexpr):
    """Leave it to the rounds that come: once, since all warps have the same."""
    for each in tl.static_range(CHUNK // 128):
        column = start + each * 128 + lane
        tl.store(cover + column, covered[each], mask=(column < stride) & (warp == 0))


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
    """Return what the rows c gain above the cover, by lane: `[warps, 128]`."""
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
    score,
    cover,
    kept,
    segments,
    rows,
    keep,
    OBJECTIVE: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_COUNTS: tl.constexpr,
    FILLS: tl.constexpr,
    WARPS: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    ASKED: tl.constexpr = OBJECTIVE == "demand" and HAS_WEIGHT
    HELD: tl.constexpr = BLOCK == CHUNK
    LENGTH: tl.constexpr = BLOCK // PARTS
    GROUPS: tl.constexpr = PARTS // WARPS
    # Once a row is taken, 1,024 columns gain less than 2**32 in all.
    WHOLE: tl.constexpr = tl.uint32 if OBJECTIVE == "coverage" and HELD else tl.int64
    segment = tl.program_id(0).to(tl.int64)
    stride = stride_of(rows)
    unit += segment * rows * stride
    weight += segment * rows
    score += segment * BLOCK
    claim = cover + (segments.to(tl.int64) + segment) * stride
    cover += segment * stride
    warp = tl.arange(0, WARPS)[:, None]
    column = tl.arange(0, LENGTH)[None, :]
    lane = tl.arange(0, 128)[None, :] + warp * 0

    # 1. All scores are exact, nothing is taken, nothing is covered but what is not there. Row i is
    # in part i % PARTS, so that all parts have rows; a mark is a row and if its score is stale.
    scores, marks, real = (), (), 0
    for group in tl.static_range(GROUPS):
        part = group * WARPS + warp
        first = tl.load(score + part * LENGTH + column)
        scores = scores + (first,)
        marks = marks + ((column * PARTS + part) * 2,)
        real += tl.sum(tl.sum((first >= 0).to(tl.int32), axis=1), axis=0)
    number = number_to_keep(keep, real, counts, segment, True, HAS_COUNTS)
    covered = ()
    for each in tl.static_range(CHUNK // 128):
        covered = covered + (tl.where(each * 128 + lane < rows, NOTHING, ALL),)

    taken, p = 0, 0
    while taken < number:
        # 2. The highest of each part, and of all.
        highest = ()
        for group in tl.static_range(GROUPS):
            highest = highest + (_highest(scores[group], marks[group]),)
        best = highest[0]
        for group in tl.static_range(1, GROUPS):
            best = tl.maximum(best, highest[group])
        best = _mark_of(tl.max(tl.max(best, axis=0), axis=0))
        takes = (best & 1) == 0
        p = tl.where(takes, best >> 1, p)
        taken += tl.where(takes, 1, 0)
        # 3. The cover with the last row taken, and what each part's row gains above it.
        row_p = unit + p.to(tl.int64) * stride + lane
        totals = ()
        for _ in tl.static_range(GROUPS):
            totals = totals + (tl.zeros([WARPS, 128], WHOLE),)
        for start in range(0, CHUNK if HELD else rows, CHUNK):
            if not HELD:
                covered = _read_cover(cover, lane, start, stride, CHUNK)
            covered = _raised(covered, row_p, start, stride, CHUNK)
            sums = ()
            for group in tl.static_range(GROUPS):
                c = tl.minimum(_mark_of(highest[group]) >> 1, rows - 1)
                row_c = unit + c.to(tl.int64) * stride + lane
                more = _gained(covered, row_c, claim + lane, start, stride, ASKED, CHUNK)
                sums = sums + (totals[group] + more.to(WHOLE),)
            totals = sums
            if not HELD:
                _write_cover(cover, covered, lane, warp, start, stride, CHUNK)
        if not HELD:
            tl.debug_barrier()
        # 4. Their scores are exact; -2 is what is taken.
        new_scores, new_marks = (), ()
        for group in tl.static_range(GROUPS):
            i = marks[group] >> 1
            c = tl.minimum(_mark_of(highest[group]) >> 1, rows - 1)
            w_c = tl.full([WARPS, 1], 1.0, tl.float32)
            if OBJECTIVE == "coverage" and HAS_WEIGHT:
                w_c = tl.load(weight + c, mask=highest[group] >= 0, other=0.0)
            exact = score_of(tl.sum(totals[group], axis=1, keep_dims=True), w_c)
            left = tl.where(i == p, -2, scores[group])
            renewed = (i == c) & (left >= 0)
            new_scores = new_scores + (tl.where(renewed, exact, left),)
            mark = tl.where(takes, i * 2 + 1, marks[group])
            new_marks = new_marks + (tl.where(renewed, i * 2, mark),)
        scores, marks = new_scores, new_marks

    # 5. In raster order, which scores are in from here on.
    for group in tl.static_range(GROUPS):
        tl.store(score + (marks[group] >> 1), scores[group])
    tl.debug_barrier()
    row = tl.arange(0, BLOCK)
    chosen = (tl.load(score + row) == -2).to(tl.int32)
    place = tl.cumsum(chosen, axis=0) - 1
    tl.store(kept + segment * keep + place, row.to(tl.int64), mask=chosen != 0)
    if FILLS:
        absent = tl.full([BLOCK], -1, dtype=tl.int64)
        tl.store(kept + segment * keep + row, absent, mask=(row >= number) & (row < keep))
