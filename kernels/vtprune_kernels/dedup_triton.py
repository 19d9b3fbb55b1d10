"""Kernel of `dedup`: all rounds of all segments in one launch, one program a segment.

A round has three steps, `dedup_round_triton.py`: the best match of each row of a, its rank among
them, the next list. Reading every `gram[a, b]` would pull 20 MB through the program's one
multiprocessor (R = 544, keep = 32), 180 us at 64 bytes a cycle. So `nearest_rows` first lists the
32 rows most similar to each row, on all multiprocessors, and the best match is the first of them
that is in b. Only if none is, once a neighbourhood has been thinned out, does a round read the row
of the Gram: the same values, so the same result to the bit.

A program keeps its list and which rows are in b in 10 bytes a row of scratch memory, and a round's
matches, which stay in the L1 cache.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch

from vtprune_kernels._triton import flags, tl, triton
from vtprune_kernels.dedup_round_triton import dedup_round
from vtprune_kernels.gpu import gpu_of
from vtprune_kernels.nearest_rows_triton import NEAREST, nearest_rows
from vtprune_kernels.ordering import number_to_keep

__all__ = ["BLOCK", "BLOCK_ROWS", "dedup_triton"]


BLOCK = 256
"""Rows of a that are handled together, one a thread. With 128 fewer threads are idle in the last
rounds, but the rounds before meet more barriers. Not yet swept on a GPU."""

BLOCK_ROWS = 1024
"""Rows handled together before the first round and after the last. Not yet swept on a GPU."""


def dedup_triton(
    gram: torch.Tensor,
    keep: int,
    step: int = 8,
    valid: torch.Tensor | None = None,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Launch the search for neighbours and the removal."""
    gram, gpu = gram.contiguous(), gpu_of(gram.device)
    segments, rows, _ = gram.shape
    kept = gram.new_empty((segments, keep), dtype=torch.int64)
    if kept.numel() == 0:
        return kept
    near_rows, near_values = nearest_rows(gram, valid)
    half = triton.cdiv(rows, 2 * BLOCK) * BLOCK  # whole blocks
    _dedup_kernel[(segments,)](
        gram,
        near_rows.view(torch.uint32),
        near_values,
        gram.new_empty((segments, 2, rows), dtype=torch.int32),
        gram.new_empty((segments, 2, rows), dtype=torch.uint8),
        gram.new_empty((segments, 3, BLOCK)),
        gram.new_empty((segments, half)),
        gram.new_empty((segments, half), dtype=torch.int32),
        gram.new_empty((segments, BLOCK), dtype=torch.int32),
        kept,
        flags(valid, gram),
        gram if counts is None else counts.contiguous(),
        rows,
        keep,
        step,
        HAS_VALID=valid is not None,
        HAS_COUNTS=counts is not None,
        NEAREST=NEAREST,
        BLOCK=BLOCK,
        HALVINGS=BLOCK.bit_length() - 1,
        BLOCK_ROWS=BLOCK_ROWS,
        num_warps=gpu.warps(BLOCK),
        num_stages=1,
        **gpu.registers(168),
    )
    return kept


@triton.jit(do_not_specialize=["rows", "keep", "step"])
def _dedup_kernel(
    gram,
    near_rows,
    near_values,
    lists,
    side,
    values,
    ordered_values,
    ordered_rows,
    queue,
    kept,
    valid,
    counts,
    rows,
    keep,
    step,
    HAS_VALID: tl.constexpr,
    HAS_COUNTS: tl.constexpr,
    NEAREST: tl.constexpr,
    BLOCK: tl.constexpr,
    HALVINGS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    segment = tl.program_id(0).to(tl.int64)
    gram += segment * rows * rows
    near_rows += segment * rows * (NEAREST // 2)
    near_values += segment * rows * NEAREST
    lists += segment * 2 * rows
    side += segment * 2 * rows
    values += segment * 3 * BLOCK
    ordered_values += segment * tl.cdiv(rows, 2 * BLOCK) * BLOCK
    ordered_rows += segment * tl.cdiv(rows, 2 * BLOCK) * BLOCK
    queue += segment * BLOCK
    lane = tl.arange(0, BLOCK_ROWS)

    # 1. The list holds the rows that exist. A row's side is 1 in b, at odd positions, and 0 in a or
    # outside the list. Rounds take turns: what one writes, the next one reads.
    length = 0
    for start in range(0, rows, BLOCK_ROWS):
        row = start + lane
        exists = row < rows
        position = row
        if HAS_VALID:
            exists = tl.load(valid + segment * rows + row, mask=row < rows, other=0) != 0
            position = length + tl.cumsum(exists.to(tl.int32), axis=0) - 1
            length += tl.sum(exists.to(tl.int32), axis=0)
        tl.store(lists + position, row, mask=exists)
        in_b = exists & (position % 2 == 1)
        tl.store(side + row, in_b.to(tl.uint8), mask=row < rows)
        tl.store(side + rows + row, tl.zeros_like(row).to(tl.uint8), mask=row < rows)
    if not HAS_VALID:
        length = rows
    tl.debug_barrier()

    # 2. The rounds.
    number = number_to_keep(keep, length, counts, segment, HAS_VALID, HAS_COUNTS)
    current = 0
    while length > number:
        removed = tl.minimum(step, tl.minimum(length - number, (length + 1) // 2))
        now, following = current * rows, (1 - current) * rows
        dedup_round(
            gram, near_rows, near_values, lists + now, side + now, lists + following,
            side + following, values, ordered_values, ordered_rows, queue, rows, length, removed,
            BLOCK, HALVINGS, NEAREST,
        )  # fmt: skip
        current = 1 - current
        length -= removed

    # 3. The rows that are left, ascending; their side is 2 now.
    for start in range(0, length, BLOCK_ROWS):
        at = start + lane
        row = tl.load(lists + current * rows + at, mask=at < length, other=0)
        tl.store(side + row, tl.full([BLOCK_ROWS], 2, dtype=tl.uint8), mask=at < length)
    tl.debug_barrier()
    written = 0
    for start in range(0, rows, BLOCK_ROWS):
        row = start + lane
        alive = tl.load(side + row, mask=row < rows, other=0) == 2
        place = written + tl.cumsum(alive.to(tl.int32), axis=0) - 1
        tl.store(kept + segment * keep + place, row.to(tl.int64), mask=alive)
        written += tl.sum(alive.to(tl.int32), axis=0)
    if HAS_VALID or HAS_COUNTS:
        for start in range(0, keep, BLOCK_ROWS):
            place = start + lane
            absent = tl.full([BLOCK_ROWS], -1, dtype=tl.int64)
            tl.store(kept + segment * keep + place, absent, mask=(place >= number) & (place < keep))
