"""Kernel of `greedy_select` for "max-min" and "dpp": one launch for all segments, one program each.

Scores and states are registers. What rows exchange (the c of "dpp") goes through memory that stays
in the L1 or L2 cache. A step of "max-min" reads one row of S (2.3 KB of 576), one of "dpp" every c.
"coverage" and "demand", whose scores take sums over rows of S: `greedy_cover_triton`.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch

from vtprune_kernels._triton import flags, size_class, tl, triton
from vtprune_kernels.greedy_cover_triton import greedy_cover_triton
from vtprune_kernels.ordering import number_to_keep, ordered_bits

__all__ = ["greedy_select_triton"]


_TILE_ELEMENTS = 4096
"""Elements of S that "max-min" reads together at first, 8 for each of 512 threads. Not yet swept on
a GPU."""

_IN_FLIGHT = 6144
"""Elements of the vectors c of "dpp" that are read together, so that their loads wait for memory
once, not in turn: 6 vectors of up to 1,024. Of 8, Triton 3.6 spills registers on sm_90, of 4 Triton
3.9. Not yet swept on a GPU."""


def greedy_select_triton(
    gram: torch.Tensor,
    keep: int,
    objective: str,
    weight: torch.Tensor | None = None,
    valid: torch.Tensor | None = None,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Launch one program a segment, or the two kernels of a cover."""
    if gram.shape[0] == 0 or keep == 0:
        return gram.new_empty((gram.shape[0], keep), dtype=torch.int64)
    if objective in ("coverage", "demand"):
        return greedy_cover_triton(gram, keep, objective, weight, valid, counts)
    gram = gram.contiguous()
    segments, rows, _ = gram.shape
    kept = gram.new_empty((segments, keep), dtype=torch.int64)
    block = size_class(rows)
    cholesky_rows = keep if objective == "dpp" else 0
    _greedy_select_kernel[(segments,)](
        gram,
        gram if weight is None else weight.contiguous(),
        flags(valid, gram),
        gram if counts is None else counts.contiguous(),
        kept,
        gram.new_empty((segments, cholesky_rows, rows), dtype=torch.float64),
        rows,
        keep,
        OBJECTIVE=objective,
        HAS_WEIGHT=weight is not None,
        HAS_VALID=valid is not None,
        HAS_COUNTS=counts is not None,
        BLOCK=block,
        ROWS=max(1, _TILE_ELEMENTS // block),
        IN_FLIGHT=max(1, min(6, _IN_FLIGHT // block)),
        num_warps=16 if block >= 512 else 4,
        # A product that is not fused with the addition after it is the same on a CPU.
        enable_fp_fusion=False,
    )
    return kept


@triton.jit(do_not_specialize=["rows", "keep"])
def _greedy_select_kernel(
    gram,
    weight,
    valid,
    counts,
    kept,
    cholesky,
    rows,
    keep,
    OBJECTIVE: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_VALID: tl.constexpr,
    HAS_COUNTS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    IN_FLIGHT: tl.constexpr,
):
    segment = tl.program_id(0).to(tl.int64)
    gram += segment * rows * rows
    cholesky += segment * keep * rows
    i = tl.arange(0, BLOCK)
    inside = i < rows
    w = tl.full([BLOCK], 1.0, dtype=tl.float32)
    if HAS_WEIGHT:
        w = tl.load(weight + segment * rows + i, mask=inside, other=0.0)
    exists = inside
    if HAS_VALID:
        exists = tl.load(valid + segment * rows + i, mask=inside, other=0) != 0
    number = number_to_keep(
        keep, tl.sum(exists.to(tl.int32), axis=0), counts, segment, HAS_VALID, HAS_COUNTS
    )
    taken = exists == 0
    score = tl.zeros([BLOCK], dtype=tl.float32)

    # 1. State and score before the first step.
    if OBJECTIVE == "max-min":
        score = tl.full([BLOCK], float("inf"), dtype=tl.float32)
        for start in range(0, rows, ROWS):
            j = start + tl.arange(0, ROWS)
            other = j < rows
            if HAS_VALID:
                other = tl.load(valid + segment * rows + j, mask=j < rows, other=0) != 0
            listed = other[:, None] & inside[None, :] & (j[:, None] != i[None, :])
            s = tl.load(
                gram + j[:, None].to(tl.int64) * rows + i[None, :],
                mask=listed,
                other=-float("inf"),
            )
            score = tl.minimum(score, tl.min(1.0 - s, axis=0))
    rest = tl.zeros([BLOCK], dtype=tl.float64)
    if OBJECTIVE == "dpp":
        diagonal = tl.load(gram + i.to(tl.int64) * (rows + 1), mask=inside, other=0.0)
        rest = w.to(tl.float64) * diagonal.to(tl.float64) * w.to(tl.float64)
    near = tl.full([BLOCK], float("inf"), dtype=tl.float32)

    for step in range(number):
        # 2. The best row that is not taken; the first of equals.
        if OBJECTIVE == "dpp":
            open_score = tl.where(taken, -1.0, tl.where(rest > 1e-6, rest, 0.0))
            highest = tl.max(open_score, axis=0)
            best = tl.min(tl.where((open_score == highest) & (taken == 0), i, BLOCK), axis=0)
        else:  # in one number, so that the threads meet once
            key = (ordered_bits(score).to(tl.int64) << 31) | (BLOCK - 1 - i)
            best = BLOCK - 1 - (tl.max(tl.where(taken, -1, key), axis=0) & 0x7FFFFFFF).to(tl.int32)
        taken = taken | (i == best)

        # 3. State with that row in the set.
        s = tl.load(gram + best.to(tl.int64) * rows + i, mask=inside, other=0.0)
        if OBJECTIVE == "max-min":
            near = tl.minimum(near, 1.0 - s)
            score = near
        if OBJECTIVE == "dpp":
            seen = tl.zeros([BLOCK], dtype=tl.float64)
            for start in range(0, step, IN_FLIGHT):
                for each in tl.static_range(IN_FLIGHT):  # added in order; what is absent adds 0
                    t = tl.minimum(start + each, step - 1)
                    listed = inside & (start + each < step)
                    c = tl.load(cholesky + t * rows + i, mask=listed, other=0.0)
                    seen += tl.load(cholesky + t * rows + best) * c
            w_best = tl.sum(tl.where(i == best, w, 0.0), axis=0).to(tl.float64)
            e = w_best * s.to(tl.float64) * w.to(tl.float64) - seen
            e = tl.where(highest > 0, e / tl.sqrt(tl.maximum(highest, 1e-6)), 0.0)
            tl.store(cholesky + step * rows + i, e, mask=inside)
            tl.debug_barrier()
            rest -= e * e

    # 4. In raster order.
    chosen = taken & exists
    place = tl.cumsum(chosen.to(tl.int32), axis=0) - 1
    tl.store(kept + segment * keep + place, i.to(tl.int64), mask=chosen)
    if HAS_VALID or HAS_COUNTS:
        absent = tl.full([BLOCK], -1, dtype=tl.int64)
        tl.store(kept + segment * keep + i, absent, mask=(i >= number) & (i < keep))
