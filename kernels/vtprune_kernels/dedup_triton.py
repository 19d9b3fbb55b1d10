"""Kernel of `dedup`: all rounds of all segments in one launch, one program a segment.

A program keeps its list, the side (a or b) of each row and a round's keys in 16 bytes a row of
scratch memory that stay in the L1 cache. Reading every `gram[a, b]` would pull 20 MB through that
one multiprocessor (R = 544, keep = 32), 180 us at 64 bytes a cycle. So `nearest_rows` first lists
the 32 rows most similar to each row, best first, on all multiprocessors. The best match in b is the
first of that list that is in b. Only if none is, once a neighbourhood has been thinned out, does
the kernel read the row of the Gram: the same values, so the same result to the bit. It sorts by
counting: a row's new position is the number of keys below its own, with the old position in the
key's low bits.

Loops carry tiles and reduce them once, after the loop: Triton 3.6 (an H200's with vLLM 0.32)
cannot compile a reduction inside a loop whose running result is used more than once afterwards
(`OptimizeThreadLocality`, seen 2026-11-27).
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch

from vtprune_kernels._triton import flags, tl, triton
from vtprune_kernels.nearest_rows_triton import NEAREST, nearest_rows
from vtprune_kernels.ordering import number_to_keep, ordered_bits

__all__ = ["dedup_triton"]


_BLOCK_ROWS = 128
"""Rows of a handled together: 8 neighbours for each of 512 threads. Not yet swept on a GPU."""


def dedup_triton(
    gram: torch.Tensor,
    keep: int,
    step: int = 8,
    valid: torch.Tensor | None = None,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Launch the search for neighbours and the removal."""
    gram = gram.contiguous()
    segments, rows, _ = gram.shape
    kept = gram.new_empty((segments, keep), dtype=torch.int64)
    if kept.numel() == 0:
        return kept
    near_row, near_value = nearest_rows(gram, valid)
    lists = gram.new_empty((segments, 2, rows), dtype=torch.int32)
    side = gram.new_empty((segments, rows), dtype=torch.int8)
    keys = gram.new_empty((segments, triton.cdiv(rows, 2)), dtype=torch.int64)
    queue = gram.new_empty((segments, triton.cdiv(rows, 2)), dtype=torch.int32)
    _dedup_kernel[(segments,)](
        gram,
        near_row,
        near_value,
        lists,
        side,
        keys,
        queue,
        kept,
        flags(valid, gram),
        gram if counts is None else counts.contiguous(),
        rows,
        near_row.shape[2],
        keep,
        step,
        HAS_VALID=valid is not None,
        HAS_COUNTS=counts is not None,
        NEAREST=NEAREST,
        FULL_LISTS=near_row.shape[2] == NEAREST,
        BLOCK_ROWS=_BLOCK_ROWS,
        num_warps=16,
        num_stages=1,
    )
    return kept


@triton.jit
def _key(best, i):
    """Lower for a better match, then for an earlier position."""
    return ((~ordered_bits(best)).to(tl.int64) << 16) | i


@triton.jit(do_not_specialize=["rows", "nearest", "keep", "step"])
def _dedup_kernel(
    gram,
    near_row,
    near_value,
    lists,
    side,
    keys,
    queue,
    kept,
    valid,
    counts,
    rows,
    nearest,
    keep,
    step,
    HAS_VALID: tl.constexpr,
    HAS_COUNTS: tl.constexpr,
    NEAREST: tl.constexpr,
    FULL_LISTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    segment = tl.program_id(0).to(tl.int64)
    if FULL_LISTS:  # a constant makes wide loads of them
        nearest = NEAREST
    gram += segment * rows * rows
    near_row += segment * rows * nearest
    near_value += segment * rows * nearest
    lists += segment * 2 * rows
    side += segment * rows
    keys += segment * tl.cdiv(rows, 2)
    queue += segment * tl.cdiv(rows, 2)
    lane = tl.arange(0, BLOCK_ROWS)
    neighbour = tl.arange(0, NEAREST)
    column = tl.arange(0, 64)

    # 1. The list holds the rows that exist. A side is 1 for a, 2 for b, 0 for what is removed.
    length = 0
    for start in range(0, rows, BLOCK_ROWS):
        i = start + lane
        exists = i < rows
        if HAS_VALID:
            exists = tl.load(valid + segment * rows + i, mask=i < rows, other=0) != 0
        position = length + tl.cumsum(exists.to(tl.int32), axis=0) - 1
        tl.store(lists + position, i, mask=exists)
        tl.store(side + i, tl.where(exists, 1 + (position & 1), 0).to(tl.int8), mask=i < rows)
        length += tl.sum(exists.to(tl.int32), axis=0)
    tl.debug_barrier()

    number = number_to_keep(keep, length, counts, segment, HAS_VALID, HAS_COUNTS)
    current = 0
    while length > number:
        count_a = (length + 1) // 2
        count_b = length // 2
        removed = tl.minimum(step, tl.minimum(length - number, count_a))
        now = lists + current * rows
        following = lists + (1 - current) * rows

        # 2. Best match of each row of a among its nearest; rows without one are queued.
        waiting = 0
        for start in range(0, count_a, BLOCK_ROWS):
            i = start + lane
            row = tl.load(now + 2 * i, mask=i < count_a, other=0)
            listed = (i < count_a)[:, None] & (neighbour < nearest)[None, :]
            at = row[:, None].to(tl.int64) * nearest + neighbour[None, :]
            near = tl.load(near_row + at, mask=listed, other=0).to(tl.int32)
            in_b = listed & (tl.load(side + near, mask=listed, other=0) == 2)
            first = tl.min(tl.where(in_b, neighbour[None, :], NEAREST), axis=1)
            best = near_value + row.to(tl.int64) * nearest + first
            value = tl.load(best, mask=first < NEAREST, other=0.0)
            tl.store(keys + i, _key(value, i), mask=first < NEAREST)
            waits = (i < count_a) & (first == NEAREST)
            number_waiting = tl.sum(waits.to(tl.int32), axis=0)
            if number_waiting > 0:
                place = waiting + tl.cumsum(waits.to(tl.int32), axis=0) - 1
                tl.store(queue + place, i, mask=waits)
            waiting += number_waiting
        tl.debug_barrier()

        # 3. The queue: its rows of the Gram against all of b.
        for start in range(0, waiting, 32):
            at = start + tl.arange(0, 32)
            i = tl.load(queue + at, mask=at < waiting, other=0)
            row = tl.load(now + 2 * i, mask=at < waiting, other=0).to(tl.int64)
            best = tl.full([32, 64], -float("inf"), dtype=tl.float32)
            for start_b in range(0, count_b, 64):
                j = start_b + column
                other = tl.load(now + 2 * j + 1, mask=j < count_b, other=0)
                value = tl.load(
                    gram + row[:, None] * rows + other[None, :],
                    mask=(at < waiting)[:, None] & (j < count_b)[None, :],
                    other=-float("inf"),
                )
                best = tl.maximum(best, value)
            tl.store(keys + i, _key(tl.max(best, axis=1), i), mask=at < waiting)
        tl.debug_barrier()

        # 4. Sort a by its keys without the first ones; b follows as it is.
        for start in range(0, count_a, BLOCK_ROWS):
            i = start + lane
            key = tl.load(keys + i, mask=i < count_a, other=0)
            below = tl.zeros([BLOCK_ROWS, 64], dtype=tl.int32)
            for start_j in range(0, count_a, 64):
                j = start_j + column
                # 2**62 is above every key.
                other = tl.load(keys + j, mask=j < count_a, other=4611686018427387904)
                below += (other[None, :] < key[:, None]).to(tl.int32)
            rank = tl.sum(below, axis=1)
            row = tl.load(now + 2 * i, mask=i < count_a, other=0)
            position = rank - removed
            stays = (i < count_a) & (position >= 0)
            tl.store(following + position, row, mask=stays)
            tl.store(
                side + row, tl.where(stays, 1 + (position & 1), 0).to(tl.int8), mask=i < count_a
            )
        for start in range(0, count_b, BLOCK_ROWS):
            j = start + lane
            row = tl.load(now + 2 * j + 1, mask=j < count_b, other=0)
            position = count_a - removed + j
            tl.store(following + position, row, mask=j < count_b)
            tl.store(side + row, (1 + (position & 1)).to(tl.int8), mask=j < count_b)
        tl.debug_barrier()
        current = 1 - current
        length -= removed

    # 5. The rows that still have a side, ascending.
    written = 0
    for start in range(0, rows, BLOCK_ROWS):
        row = start + lane
        alive = tl.load(side + row, mask=row < rows, other=0) > 0
        place = written + tl.cumsum(alive.to(tl.int32), axis=0) - 1
        tl.store(kept + segment * keep + place, row.to(tl.int64), mask=alive)
        written += tl.sum(alive.to(tl.int32), axis=0)
    if HAS_VALID or HAS_COUNTS:
        for start in range(0, keep, BLOCK_ROWS):
            place = start + lane
            absent = tl.full([BLOCK_ROWS], -1, dtype=tl.int64)
            tl.store(kept + segment * keep + place, absent, mask=(place >= number) & (place < keep))
