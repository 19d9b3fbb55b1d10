"""Kernels of `greedy_cover_triton`, which says how they work together."""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from vtprune_kernels._triton import tl, triton
from vtprune_kernels.ordering import number_to_keep

__all__ = ["cover_step_kernel", "first_gains_kernel", "taken_kernel"]


@triton.jit
def _units(similarity):
    """Count whole multiples of 2**-22, half to even: adding 1.5 * 2**23 shifts a fraction out."""
    scaled = tl.minimum(tl.maximum(similarity, -1.0), 1.0) * 4194304.0
    return ((scaled + 12582912.0) - 12582912.0).to(tl.int32)


@triton.jit
def _in_demand(more, weight, j, there, rows, segment):
    """Multiply columns by how much of them is asked for, in whole multiples of 2**-30."""
    asked = tl.load(weight + segment * rows + j, mask=there, other=0.0).to(tl.float64)
    # Half to even, by the shift of `_units` in float64.
    asked = (asked * 1073741824.0 + 6755399441055744.0) - 6755399441055744.0
    return more * asked.to(tl.int64)[None, :]


@triton.jit
def _which_exist(valid, segment, i, rows, HAS_VALID: tl.constexpr):
    exist = i < rows
    if HAS_VALID:
        exist = tl.load(valid + segment * rows + i, mask=exist, other=0) != 0
    return exist


@triton.jit
def _end(rows, BLOCK: tl.constexpr, CHUNK: tl.constexpr):
    """Say where a loop over chunks ends; a constant where it is one, and then no loop."""
    if BLOCK <= CHUNK:
        return CHUNK
    else:
        return rows


@triton.jit
def _best_of_all(best, buffer, segment, segments, programs, PROGRAMS: tl.constexpr):
    """Return the row of the highest score that a launch left in `buffer`; the first of equals."""
    at = tl.arange(0, PROGRAMS)
    entry = best + (buffer * 2 * segments + segment) * programs + at
    score = tl.load(entry, mask=at < programs, other=-1)
    row = tl.load(entry + segments * programs, mask=at < programs, other=2147483647)
    return tl.min(tl.where(score == tl.max(score, axis=0), row, 2147483647), axis=0)


@triton.jit
def _leave_best(
    best,
    buffer,
    gain,
    i,
    weight,
    segment,
    segments,
    rows,
    programs,
    OBJECTIVE: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
):
    """Write this program's highest score and its row; a gain of -1 is a row that is not open."""
    score = gain
    if OBJECTIVE == "coverage":
        value = gain.to(tl.float32)
        if HAS_WEIGHT:
            value *= tl.load(weight + segment * rows + i, mask=i < rows, other=0.0)
        # Not negative, so the bits order as the numbers do; adding 0.0 makes of -0.0 a zero.
        score = tl.where(gain < 0, -1, (value + 0.0).to(tl.int32, bitcast=True).to(tl.int64))
    highest = tl.max(score, axis=0)
    row = tl.min(tl.where(score == highest, i, 2147483647), axis=0)
    entry = best + (buffer * 2 * segments + segment) * programs + tl.program_id(0)
    tl.store(entry, highest)
    tl.store(entry + segments * programs, row.to(tl.int64))


@triton.jit(do_not_specialize=["segments", "rows", "programs", "keep"])
def first_gains_kernel(
    gram,
    weight,
    valid,
    gain,
    cover,
    best,
    segments,
    rows,
    programs,
    number,
    keep,
    counts,
    OBJECTIVE: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_VALID: tl.constexpr,
    HAS_COUNTS: tl.constexpr,
    BLOCK: tl.constexpr,
    HEIGHT: tl.constexpr,
    CHUNK: tl.constexpr,
):
    segment = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * HEIGHT + tl.arange(0, HEIGHT)
    open_i = _which_exist(valid, segment, i, rows, HAS_VALID)
    begin = gram + (segment * rows + i[:, None].to(tl.int64)) * rows
    total = tl.zeros([HEIGHT, CHUNK], dtype=tl.int64)
    there = tl.zeros([CHUNK], dtype=tl.int32)
    for start in range(0, _end(rows, BLOCK, CHUNK), CHUNK):
        j = start + tl.arange(0, CHUNK)
        open_j = _which_exist(valid, segment, j, rows, HAS_VALID)
        there += open_j.to(tl.int32)
        s = tl.load(begin + j[None, :], mask=open_i[:, None] & open_j[None, :], other=0.0)
        more = tl.maximum(_units(s), 0).to(tl.int64)
        if OBJECTIVE == "demand" and HAS_WEIGHT:
            more = _in_demand(more, weight, j, open_j, rows, segment)
        total += more
    gains = tl.where(open_i, tl.sum(total, axis=1), -1)
    tl.store(gain + segment * rows + i, gains, mask=i < rows)
    tl.store(cover + segment * rows + i, tl.zeros([HEIGHT], dtype=tl.int32), mask=i < rows)
    _leave_best(best, 0, gains, i, weight, segment, segments, rows, programs, OBJECTIVE, HAS_WEIGHT)
    if tl.program_id(0) == 0:
        real = tl.sum(there, axis=0)
        takes = number_to_keep(keep, real, counts, segment, HAS_VALID, HAS_COUNTS)
        tl.store(number + segment, takes)


@triton.jit(do_not_specialize=["segments", "rows", "programs", "step"])
def cover_step_kernel(
    gram,
    weight,
    valid,
    gain,
    cover,
    best,
    segments,
    rows,
    programs,
    number,
    step,
    OBJECTIVE: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_VALID: tl.constexpr,
    BLOCK: tl.constexpr,
    HEIGHT: tl.constexpr,
    CHUNK: tl.constexpr,
):
    segment = tl.program_id(1).to(tl.int64)
    if step >= tl.load(number + segment) - 1:  # the last row that it takes changes no score
        return
    # 1. The row that is taken.
    old, new = step % 2, 1 - step % 2
    p = _best_of_all(best, old, segment, segments, programs, (BLOCK + HEIGHT - 1) // HEIGHT)
    row_p = gram + (segment * rows + p) * rows
    covered = cover + (old * segments + segment) * rows
    # 2. What this program's rows no longer gain.
    i = tl.program_id(0) * HEIGHT + tl.arange(0, HEIGHT)
    gains = tl.load(gain + segment * rows + i, mask=i < rows, other=-1)
    open_i = (gains >= 0) & (i != p)
    begin = gram + (segment * rows + i[:, None].to(tl.int64)) * rows
    lost = tl.zeros([HEIGHT, CHUNK], dtype=tl.int64)
    for start in range(0, _end(rows, BLOCK, CHUNK), CHUNK):
        j = start + tl.arange(0, CHUNK)
        open_j = _which_exist(valid, segment, j, rows, HAS_VALID)
        before = tl.load(covered + j, mask=open_j, other=0)
        now = tl.maximum(before, _units(tl.load(row_p + j, mask=open_j, other=0.0)))
        rises = now > before
        s = tl.load(begin + j[None, :], mask=open_i[:, None] & rises[None, :], other=0.0)
        u = _units(s)
        less = tl.maximum(u - before[None, :], 0) - tl.maximum(u - now[None, :], 0)
        less = less.to(tl.int64)
        if OBJECTIVE == "demand" and HAS_WEIGHT:
            less = _in_demand(less, weight, j, rises, rows, segment)
        lost += less
    gains = tl.where(open_i, gains - tl.sum(lost, axis=1), -1)
    tl.store(gain + segment * rows + i, gains, mask=i < rows)
    # 3. Their cover, and the best of them.
    real_i = _which_exist(valid, segment, i, rows, HAS_VALID)
    before = tl.load(covered + i, mask=real_i, other=0)
    now = tl.maximum(before, _units(tl.load(row_p + i, mask=real_i, other=0.0)))
    tl.store(cover + (new * segments + segment) * rows + i, now, mask=real_i)
    _leave_best(
        best, new, gains, i, weight, segment, segments, rows, programs, OBJECTIVE, HAS_WEIGHT
    )


@triton.jit(do_not_specialize=["segments", "rows", "programs", "keep"])
def taken_kernel(
    gain,
    cover,
    best,
    valid,
    number,
    kept,
    segments,
    rows,
    programs,
    keep,
    HAS_VALID: tl.constexpr,
    FILLS: tl.constexpr,
    BLOCK: tl.constexpr,
    PROGRAMS: tl.constexpr,
):
    """Write the taken rows in raster order: those whose gain is -1, and the last one."""
    segment = tl.program_id(0).to(tl.int64)
    takes = tl.load(number + segment)
    i = tl.arange(0, BLOCK)
    exist = _which_exist(valid, segment, i, rows, HAS_VALID)
    last = _best_of_all(best, (takes + 1) % 2, segment, segments, programs, PROGRAMS)
    last = tl.where(takes > 0, last, -1)
    gains = tl.load(gain + segment * rows + i, mask=exist, other=0)
    taken = exist & ((gains < 0) | (i == last))
    place = tl.cumsum(taken.to(tl.int32), axis=0) - 1
    tl.store(kept + segment * keep + place, i.to(tl.int64), mask=taken)
    if FILLS:
        absent = tl.full([BLOCK], -1, dtype=tl.int64)
        tl.store(kept + segment * keep + i, absent, mask=(i >= takes) & (i < keep))
