"""Kernels of `greedy_select` for "coverage" and "demand": a launch a step, every SM on one image.

A program owns some rows of S, whose gains only it reads and changes. A step (1) finds the best row
p among the programs' best ones, (2) reads row p and the cover, which say whose cover rises, (3)
reads of its own rows those columns alone (S is symmetric) and subtracts what they no longer gain,
which is exact since gains are whole numbers, (4) writes its best open row. Programs of one launch
exchange nothing: what they read of each other, `best` and `cover`, the launch before wrote into the
other of two buffers. So no barrier, no atomics, no host; a CUDA graph takes all launches as they
are: the first gains, keep - 1 steps, the list of what was taken.

Memory: the first launch reads S once, 4 N^2 bytes (1.3 MB of 576, 33 MB of 2,880). A step reads the
sectors of 8 columns of which one rises: all steps together 8 to 19 times S at 64 of 576 (10 to
25 MB), 9 to 26 times at 160 of 2,880 (0.3 to 0.9 GB), from smooth pictures to random rows, counted
on a CPU. Beside it each program reads p's row, the cover and the list of best rows, 8 N + 16 N /
_HEIGHT bytes: 0.4 MB a step of 576, 10 MB of 2,880. All of it stays in an L2 cache of 50 MB.

Estimated for an H200, not measured: 4 to 5 us a step in a CUDA graph, 1.2 of them between two
launches, the rest three dependent reads and three reductions, so 0.3 ms at 64 of 576; 8 to 10 us a
step and 1.3 to 1.6 ms at 160 of 2,880. Without a graph the host decides, with some 10 us a launch.
(One program an image, reading all of S each step, took 6.9 and 8.1 ms at 64 of 576.)
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import Any

import torch

from vtprune_kernels._triton import flags, size_class, tl, triton
from vtprune_kernels.ordering import number_to_keep

__all__ = ["greedy_cover_triton"]


_HEIGHT = 8
"""Rows of S that a program owns: 72 programs for an image of 576. Not yet swept on a GPU."""

_CHUNK = 1024
"""Columns read together, 32 numbers of S for each of 256 threads. Longer rows are read by half of
each, so that registers leave room for three programs on an SM. Not yet swept on a GPU."""


def greedy_cover_triton(
    gram: torch.Tensor,
    keep: int,
    objective: str,
    weight: torch.Tensor | None,
    valid: torch.Tensor | None,
    counts: torch.Tensor | None,
) -> torch.Tensor:
    """Launch the first gains, the steps and the list of what was taken; arguments and result are
    `greedy_select`'s, with `keep` at least 1."""
    segments, rows, _ = gram.shape
    block, programs = size_class(rows), triton.cdiv(rows, _HEIGHT)
    kept = gram.new_empty((segments, keep), dtype=torch.int64)
    number = gram.new_empty((segments,), dtype=torch.int32)
    exists = flags(valid, gram)
    state = (
        gram.new_empty((segments, rows), dtype=torch.int64),  # gain, -1 of what is not open
        gram.new_empty((2, segments, rows), dtype=torch.int32),  # cover
        gram.new_empty((2, 2, segments, programs), dtype=torch.int64),  # best: scores, rows
    )
    shared = (
        gram.contiguous(),
        gram if weight is None else weight.contiguous(),
        exists,
        *state,
        segments,
        rows,
        programs,
        number,
    )
    options: dict[str, Any] = {
        "OBJECTIVE": objective,
        "HAS_WEIGHT": weight is not None,
        "HAS_VALID": valid is not None,
        "BLOCK": block,
        "HEIGHT": _HEIGHT,
        "CHUNK": min(block, _CHUNK if block <= _CHUNK else _CHUNK // 2),
        "num_warps": 8 if 512 <= block <= _CHUNK else 4,
        "enable_fp_fusion": False,
    }
    has_counts = counts is not None
    limits = (keep, gram if counts is None else counts.contiguous())
    grid = (programs, segments)
    _first_gains_kernel[grid](*shared, *limits, HAS_COUNTS=has_counts, **options)
    for step in range(keep - 1):
        _cover_step_kernel[grid](*shared, step, **options)
    _taken_kernel[(segments,)](
        *state,
        exists,
        number,
        kept,
        segments,
        rows,
        programs,
        keep,
        HAS_VALID=valid is not None,
        FILLS=valid is not None or has_counts,
        BLOCK=block,
        PROGRAMS=triton.cdiv(block, _HEIGHT),
        num_warps=4 if block < 4096 else 16,
    )
    return kept


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
def _first_gains_kernel(
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
def _cover_step_kernel(
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
def _taken_kernel(
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
