"""The lazy selection itself: the second launch of `greedy_cover_triton`, which says how it works.

Each warp has some parts of the rows, one of each group, and a row of each tile: `[warps, rows of a
warp]`, where every fourth column is a part, and `[warps, 128]` for columns of S. A thread has four
columns beside each other of both. So what ranks and adds within a part passes between the threads
of a warp alone, and warps meet once a round. Tuples are for groups and tiles: in three dimensions
Triton 3.6 and 3.9 give the warps to different ones.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, misc"

from __future__ import annotations

from vtprune_kernels._triton import tl, triton
from vtprune_kernels.greedy_cover_kernels import ALL, NOTHING, score_of, stride_of
from vtprune_kernels.ordering import number_to_keep

__all__ = ["lazy_cover_kernel"]


@triton.jit
def _highest(score, mark, mine):
    """Return the highest score of some of each warp's rows, negative if none is open, and the
    lowest mark that has it: two `[warps, 1]`, each by one instruction of all lanes."""
    most = tl.max(tl.where(mine, score, -3), axis=1, keep_dims=True)
    first = tl.where(mine & (score == most), mark, 0x7FFFFFFF)
    return most, tl.min(first, axis=1, keep_dims=True)


@triton.jit
def _best_of_all(score, mark, meeting, warp, lane, WARPS: tl.constexpr):
    """Return the mark of the highest score of all warps, the lowest of equals; `[warps, 1]` each.

    The only barrier of a round, so `meeting` is another place in the next one: a warp that is ahead
    writes there, and cannot be two rounds ahead, since all of them wait here in between.
    """
    tl.store(meeting + warp * 4 + lane, tl.where(lane % 2 == 0, score, mark), mask=lane < 4)
    tl.debug_barrier()
    other = tl.arange(0, 32) % WARPS * 4
    scores, marks = tl.load(meeting + other), tl.load(meeting + other + 1)
    return tl.min(tl.where(scores == tl.max(scores, axis=0), marks, 0x7FFFFFFF), axis=0)


@triton.jit
def _read_cover(cover, lane, start, stride, TILES: tl.constexpr):
    """Return the cover from column `start` on: a tuple of `[warps, 128]`."""
    covered = ()
    for each in tl.static_range(TILES):
        column = start + each * 128 + lane
        covered = covered + (tl.load(cover + column, mask=column < stride, other=ALL),)
    return covered


@triton.jit
def _write_cover(cover, covered, lane, warp, start, stride, TILES: tl.constexpr):
    """Leave it to the rounds that come: once, since all warps have the same."""
    for each in tl.static_range(TILES):
        column = start + each * 128 + lane
        tl.store(cover + column, covered[each], mask=(column < stride) & (warp == 0))


@triton.jit
def _column(start, each: tl.constexpr, stride, WITHIN: tl.constexpr):
    """Return where a tile begins. Past the end stand copies of the last columns, where all is
    covered."""
    column = start + each * 128
    return column if WITHIN else tl.minimum(column, stride - 128)


@triton.jit
def _raised(covered, row_p, start, stride, WITHIN: tl.constexpr, TILES: tl.constexpr):
    """Return the cover with row p, which changes nothing the second time."""
    above = ()
    for each in tl.static_range(TILES):
        u = tl.load(row_p + _column(start, each, stride, WITHIN))
        above = above + (tl.maximum(covered[each], u),)
    return above


@triton.jit
def _gained(
    covered, row_c, claim, start, stride,
    ASKED: tl.constexpr, WITHIN: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """Return what the rows c gain above the cover, by lane: `[warps, 128]`."""
    more = tl.zeros(covered[0].shape, tl.int64 if ASKED else tl.int32)
    for each in tl.static_range(TILES):
        column = _column(start, each, stride, WITHIN)
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
    meeting,
    kept,
    segments,
    rows,
    keep,
    OBJECTIVE: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_COUNTS: tl.constexpr,
    FILLS: tl.constexpr,
    WARPS: tl.constexpr,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    HELD: tl.constexpr,
):
    ASKED: tl.constexpr = OBJECTIVE == "demand" and HAS_WEIGHT
    # Tiles of 128 columns. If the cover is held, more than half of them exist in any case.
    TILES: tl.constexpr = CHUNK // 128
    NEAR: tl.constexpr = TILES // 2 + 1 if HELD else TILES
    # Once a row is taken, 1,024 columns gain less than 2**32 in all.
    WHOLE: tl.constexpr = tl.uint32 if OBJECTIVE == "coverage" and HELD else tl.int64
    segment = tl.program_id(0).to(tl.int64)
    stride = stride_of(rows)
    unit += segment * rows * stride
    weight += segment * rows
    score += segment * BLOCK
    claim = cover + (segments.to(tl.int64) + segment) * stride
    cover += segment * stride
    meeting += segment * 8 * WARPS
    warp = tl.arange(0, WARPS)[:, None]
    # A part is one of a thread's four columns, in all threads of a warp.
    column = tl.arange(0, BLOCK // WARPS)[None, :]
    lane = tl.arange(0, 128)[None, :] + warp * 0

    # 1. All scores are exact, nothing is taken, nothing is covered but what is not there. Row i is
    # in part i % (WARPS * GROUPS), so that all parts have rows; a mark is a row, and 1 if its score
    # is stale.
    scores = tl.load(score + warp * (BLOCK // WARPS) + column)
    marks = (column * WARPS + warp) * 2
    real = BLOCK + tl.sum(tl.sum(scores >> 31, axis=1), axis=0)  # -1 of each that does not exist
    number = number_to_keep(keep, real, counts, segment, True, HAS_COUNTS)
    near, far = (), ()
    for each in tl.static_range(NEAR):
        near = near + (tl.where(each * 128 + lane < rows, NOTHING, ALL),)
    for each in tl.static_range(NEAR, TILES):
        far = far + (tl.where(each * 128 + lane < rows, NOTHING, ALL),)

    taken, p, turn = 0, 0, 0
    while taken < number:
        # 2. The highest of all; if its score is exact, it is taken, and -2 from here on.
        most, mark = _highest(scores, marks, column >= 0)
        best = _best_of_all(most, mark, meeting + turn, warp, lane, WARPS)
        turn = 4 * WARPS - turn
        takes = (best & 1) == 0
        p = tl.where(takes, best >> 1, p)
        taken += tl.where(takes, 1, 0)
        scores = tl.where(marks == tl.where(takes, best, -1), -2, scores)
        marks = tl.where(takes, marks | 1, marks)
        # 3. The highest stale score of each part.
        stale = tl.where((marks & 1) != 0, scores, -3)
        tags = ()
        for group in tl.static_range(GROUPS):
            _, tag = _highest(stale, marks, column % GROUPS == group)
            tags = tags + (tag,)
        # 4. The cover with the last row taken, and what each part's row gains above it.
        row_p = unit + p * stride + lane  # fewer than 2**31 units in a segment
        rows_c, totals = (), ()
        for group in tl.static_range(GROUPS):
            c = tl.minimum(tags[group] >> 1, rows - 1)
            rows_c = rows_c + (unit + c * stride + lane,)
            totals = totals + (tl.zeros([WARPS, 128], WHOLE),)
        for start in range(0, CHUNK if HELD else rows, CHUNK):
            if not HELD:
                near = _read_cover(cover, lane, start, stride, NEAR)
            near = _raised(near, row_p, start, stride, HELD, NEAR)
            sums = ()
            for group in tl.static_range(GROUPS):
                more = _gained(near, rows_c[group], claim + lane, start, stride, ASKED, HELD, NEAR)
                sums = sums + (totals[group] + more.to(WHOLE),)
            totals = sums
            if not HELD:
                _write_cover(cover, near, lane, warp, start, stride, NEAR)
        if NEAR < TILES:
            more_exist = stride > NEAR * 128
            if more_exist:
                far = _raised(far, row_p, NEAR * 128, stride, False, TILES - NEAR)
                sums = ()
                for group in tl.static_range(GROUPS):
                    more = _gained(
                        far, rows_c[group], claim + lane, NEAR * 128, stride, ASKED, False,
                        TILES - NEAR,
                    )  # fmt: skip
                    sums = sums + (totals[group] + more.to(WHOLE),)
                totals = sums
        # 5. Their scores are exact.
        for group in tl.static_range(GROUPS):
            c = tags[group] >> 1
            w_c = tl.full([WARPS, 1], 1.0, tl.float32)
            if OBJECTIVE == "coverage" and HAS_WEIGHT:
                w_c = tl.load(weight + tl.minimum(c, rows - 1))
            exact = score_of(tl.sum(totals[group], axis=1, keep_dims=True), w_c)
            renewed = (column % GROUPS == group) & (marks == tags[group]) & (scores >= 0)
            scores = tl.where(renewed, exact, scores)
            marks = tl.where(renewed, marks - 1, marks)

    # 6. In raster order, which scores are in from here on.
    tl.store(score + (marks >> 1), scores)
    tl.debug_barrier()
    i = tl.arange(0, BLOCK)
    chosen = (tl.load(score + i) == -2).to(tl.int32)
    place = tl.cumsum(chosen, axis=0) - 1
    tl.store(kept + segment * keep + place, i.to(tl.int64), mask=chosen != 0)
    if FILLS:
        absent = tl.full([BLOCK], -1, dtype=tl.int64)
        tl.store(kept + segment * keep + i, absent, mask=(i >= number) & (i < keep))
