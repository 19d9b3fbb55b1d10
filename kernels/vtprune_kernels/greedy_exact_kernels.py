"""The selection from rows too long for the lazy kernel, launched by `greedy_exact_triton`, which
says how it works.

A gain is -1 of a row that does not exist and -2 of one that is taken.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from vtprune_kernels._triton import tl, triton
from vtprune_kernels.greedy_cover_kernels import NOTHING, score_of, stride_of, write_gain
from vtprune_kernels.ordering import number_to_keep

__all__ = ["exact_cover_kernel", "next_gains_kernel"]

_LAST = tl.constexpr(0x7FFFFFFF)


@triton.jit
def _key(gain, row):
    """Return what rows compare by, as one number: the score, then the lower row. Negative of a row
    that is not open."""
    return (score_of(gain, 1.0).to(tl.int64) << 32) | (_LAST - row)


@triton.jit
def _read(gain, half, inside):
    """Return gains that `write_gain` wrote, -1 outside."""
    low = tl.load(gain, mask=inside, other=-1)
    high = tl.load(gain + half, mask=inside, other=-1)
    return (high.to(tl.int64) << 32) | low.to(tl.uint32, bitcast=True).to(tl.int64)


@triton.jit
def _highest(gain, half, rows, CHUNK: tl.constexpr):
    """Return the highest key of all rows, by lane: `[CHUNK]`, and how many are taken."""
    lane = tl.arange(0, CHUNK)
    best = tl.full([CHUNK], -1, tl.int64)
    taken = tl.zeros([CHUNK], tl.int32)
    for start in range(0, rows, CHUNK):
        row = start + lane
        more = _read(gain + row, half, row < rows)
        best = tl.maximum(best, _key(more, row))
        taken += (more == -2).to(tl.int32)
    return best, taken


@triton.jit
def _row_of(best):
    """Return the row of the highest key; 0 if it is negative."""
    return tl.where(best < 0, 0, _LAST - (best & _LAST).to(tl.int32))


@triton.jit(do_not_specialize=["segments", "rows", "keep", "turn"])
def next_gains_kernel(
    counts,
    unit,
    gain,
    next_gain,
    cover,
    next_cover,
    claim,
    segments,
    rows,
    keep,
    turn,
    HAS_COUNTS: tl.constexpr,
    HEIGHT: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Take the best row, the `turn`-th, and write the gains and the cover with it."""
    segment = tl.program_id(1).to(tl.int64)
    stride = stride_of(rows)
    gain += segment * stride
    next_gain += segment * stride
    cover += segment * stride
    next_cover += segment * stride
    claim += segment * stride
    half = segments.to(tl.int64) * stride
    keys, _ = _highest(gain, half, rows, CHUNK)
    best = tl.max(keys, axis=0)
    number = number_to_keep(keep, 0, counts, segment, False, HAS_COUNTS)
    takes = (best >= 0) & (turn < number)
    p = _row_of(best)
    i = tl.program_id(0) * HEIGHT + tl.arange(0, HEIGHT)
    row = segment * rows + tl.minimum(i, rows - 1)[:, None].to(tl.int64)
    row_p = (segment * rows + p) * stride
    written = tl.where(tl.program_id(0) == 0, stride, 0)  # once, since all have the same
    total = tl.zeros([HEIGHT, CHUNK], dtype=tl.int64)
    for start in range(0, stride, CHUNK):
        j = start + tl.arange(0, CHUNK)
        inside = j < stride
        covered = tl.load(cover + j, mask=inside, other=0)
        raised = tl.maximum(covered, tl.load(unit + row_p + j, mask=inside, other=0))
        covered = tl.where(takes, raised, covered)
        tl.store(next_cover + j, covered, mask=j < written)
        u = tl.load(unit + row * stride + j[None, :], mask=inside[None, :], other=0)
        above = tl.maximum(u, covered[None, :]) - covered[None, :]
        asked = tl.load(claim + j, mask=inside, other=0)
        total += above.to(tl.int64) * asked.to(tl.int64)[None, :]
    before = _read(gain + i, half, i < stride)
    after = tl.where(takes & (i == p), -2, tl.where(before < 0, before, tl.sum(total, axis=1)))
    write_gain(next_gain + i, half, after, i < stride)


@triton.jit
def _list_raised(unit_p, cover, claim, listed, stride, LISTED: tl.constexpr, AHEAD: tl.constexpr):
    """Raise the cover by a row, and list the columns where it rises, in any order: four arrays of
    `stride + AHEAD` beside each other, the column, its cover before and after, and its claim.

    Returns:
        Their number, and the sum of cover before times claim. Behind the last one stand some that
        change nothing.
    """
    number = 0
    sixteen = tl.arange(0, 16)[None, :]
    for start in range(0, stride, LISTED):
        j = start + tl.arange(0, LISTED // 16)[:, None] * 16 + sixteen
        # Nothing is covered less than this, so what is outside does not rise.
        u = tl.load(unit_p + j, mask=j < stride, other=NOTHING)
        rises = (u > tl.load(cover + j, mask=j < stride, other=NOTHING)).to(tl.int32)
        each = tl.sum(rises, axis=1)
        earlier = number + tl.cumsum(each, axis=0) - each
        place = earlier[:, None] + tl.cumsum(rises, axis=1) - 1
        tl.store(listed + place, j, mask=rises != 0)
        number += tl.sum(each, axis=0)
    tl.debug_barrier()
    length = stride + AHEAD
    below = tl.zeros([256], tl.int64)
    for start in range(0, number + AHEAD, 256):
        place = start + tl.arange(0, 256)
        there = place < number
        j = tl.load(listed + place, mask=there, other=0)
        before = tl.load(cover + j, mask=there, other=0)
        after = tl.load(unit_p + j, mask=there, other=0)
        asked = tl.load(claim + j, mask=there, other=0)
        below += before.to(tl.int64) * asked.to(tl.int64)
        tl.store(cover + j, after, mask=there)
        inside = place < number + AHEAD
        tl.store(listed + place, j, mask=inside)
        tl.store(listed + length + place, before, mask=inside)
        tl.store(listed + 2 * length + place, after, mask=inside)
        tl.store(listed + 3 * length + place, asked, mask=inside)
    tl.debug_barrier()
    return number, tl.sum(below, axis=0)


@triton.jit
def _lost(unit, listed, number, lane, stride, AHEAD: tl.constexpr):
    """Return `[CHUNK]`, for rows `lane` the sum over the listed columns of claim times similarity,
    held between the cover before and after. Above the same sum of the cover before, that is what
    they can no longer gain. Either may wrap around, their difference does not."""
    length = stride + AHEAD
    lost = lane.to(tl.int64) * 0
    for first in range(0, number, AHEAD):
        entry = listed + first + tl.arange(0, AHEAD)
        column = tl.load(entry)
        before = tl.load(entry + length)
        after = tl.load(entry + 2 * length)
        asked = tl.load(entry + 3 * length).to(tl.int64)
        u = tl.load(unit + column[:, None] * stride + lane[None, :])
        within = tl.minimum(tl.maximum(u, before[:, None]), after[:, None])
        lost += tl.sum(within.to(tl.int64) * asked[:, None], axis=0)
    return lost


@triton.jit(do_not_specialize=["segments", "rows", "keep"])
def exact_cover_kernel(
    counts,
    unit,
    gain,
    cover,
    claim,
    listed,
    kept,
    segments,
    rows,
    keep,
    HAS_COUNTS: tl.constexpr,
    FILLS: tl.constexpr,
    CHUNK: tl.constexpr,
    LISTED: tl.constexpr,
    AHEAD: tl.constexpr,
):
    segment = tl.program_id(0).to(tl.int64)
    stride = stride_of(rows)
    unit += segment * rows * stride
    gain += segment * stride
    cover += segment * stride
    claim += segment * stride
    listed += segment * 4 * (stride + AHEAD)
    number = number_to_keep(keep, 0, counts, segment, False, HAS_COUNTS)
    half = segments.to(tl.int64) * stride
    lane = tl.arange(0, CHUNK)

    keys, earlier = _highest(gain, half, rows, CHUNK)
    best = tl.max(keys, axis=0)
    taken = tl.sum(earlier, axis=0)
    now, then = half * 0, 2 * half
    while (taken < number) & (best >= 0):
        # 1. The columns whose cover the best row raises.
        p = _row_of(best)
        raised, below = _list_raised(unit + p * stride, cover, claim, listed, stride, LISTED, AHEAD)
        # 2. What each row gains less of them, and the best row then. The last chunk overlaps the
        # one before: gains are read from one place and written to another.
        keys = tl.full([CHUNK], -1, tl.int64)
        for start in range(0, rows, CHUNK):
            row = tl.minimum(start, stride - CHUNK) + lane
            more = _read(gain + now + row, half, row < stride)
            lost = _lost(unit, listed, raised, row, stride, AHEAD) - below
            more = tl.where(row == p, -2, tl.where(more < 0, more, more - lost))
            write_gain(gain + then + row, half, more, row < stride)
            keys = tl.maximum(keys, _key(more, row))
        best = tl.max(keys, axis=0)
        now, then = then, now
        taken += 1
    tl.debug_barrier()

    # 3. In raster order.
    written = 0
    for start in range(0, rows, CHUNK):
        row = start + lane
        last = _read(gain + now + row, half, row < rows)
        chosen = (last == -2).to(tl.int32)
        place = written + tl.cumsum(chosen, axis=0) - 1
        tl.store(kept + segment * keep + place, row.to(tl.int64), mask=chosen != 0)
        written += tl.sum(chosen, axis=0)
    if FILLS:
        for start in range(0, keep, CHUNK):
            place = start + lane
            absent = (place >= written) & (place < keep)
            tl.store(kept + segment * keep + place, tl.full([CHUNK], -1, tl.int64), mask=absent)
