"""Kernel of `greedy_select`: one launch for all segments, one program each, all steps inside.

Scores and states are registers. What rows exchange (the list of rows whose cover rises, the c) goes
through memory that stays in the L1 or L2 cache. A step of "max-min" reads one row of S (2.3 KB of
576), one of "dpp" every c. A step of "coverage" or "demand" reads the rows of S that the taken row
covers better than the set did, all at first and ever fewer later: gains are whole numbers, so
subtracting what those rows no longer gain is exact.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch

from vtprune_kernels._triton import flags, size_class, tl, triton
from vtprune_kernels.ordering import number_to_keep

__all__ = ["greedy_select_triton"]


_TILE_ELEMENTS = 4096
"""Elements of S read together: 8 for each of 512 threads; with 16, "coverage" of padded segments
spills 24 bytes a thread (sm_90). Not yet swept on a GPU."""


def greedy_select_triton(
    gram: torch.Tensor,
    keep: int,
    objective: str,
    weight: torch.Tensor | None = None,
    valid: torch.Tensor | None = None,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Launch one program a segment."""
    gram = gram.contiguous()
    segments, rows, _ = gram.shape
    kept = gram.new_empty((segments, keep), dtype=torch.int64)
    if kept.numel() == 0:
        return kept
    block = size_class(rows)
    cholesky_rows = keep if objective == "dpp" else 0
    _greedy_select_kernel[(segments,)](
        gram,
        gram if weight is None else weight.contiguous(),
        flags(valid, gram),
        gram if counts is None else counts.contiguous(),
        kept,
        gram.new_empty((segments, 3, rows), dtype=torch.int32),
        gram.new_empty((segments, cholesky_rows, rows), dtype=torch.float64),
        rows,
        keep,
        OBJECTIVE=objective,
        HAS_WEIGHT=weight is not None,
        HAS_VALID=valid is not None,
        HAS_COUNTS=counts is not None,
        BLOCK=block,
        ROWS=max(1, _TILE_ELEMENTS // block),
        num_warps=16 if block >= 512 else 4,
        # A product that is not fused with the addition after it is the same on a CPU.
        enable_fp_fusion=False,
    )
    return kept


@triton.jit
def _units(similarity):
    """Count whole multiples of 2**-22, half to even: adding 1.5 * 2**23 shifts a fraction out."""
    scaled = tl.minimum(tl.maximum(similarity, -1.0), 1.0) * 4194304.0
    return ((scaled + 12582912.0) - 12582912.0).to(tl.int32)


@triton.jit
def _demand(weight):
    """Count whole multiples of 2**-30, half to even, by the same shift in float64."""
    scaled = weight.to(tl.float64) * 1073741824.0
    return ((scaled + 6755399441055744.0) - 6755399441055744.0).to(tl.int64)


@triton.jit
def _rows_of(gram, j, listed, i, inside, rows):
    """Load rows j of S, zeros where not listed: `[ROWS, BLOCK]`."""
    return tl.load(
        gram + j[:, None].to(tl.int64) * rows + i[None, :],
        mask=listed[:, None] & inside[None, :],
        other=0.0,
    )


@triton.jit(do_not_specialize=["rows", "keep"])
def _greedy_select_kernel(
    gram,
    weight,
    valid,
    counts,
    kept,
    risen,
    cholesky,
    rows,
    keep,
    OBJECTIVE: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_VALID: tl.constexpr,
    HAS_COUNTS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    segment = tl.program_id(0).to(tl.int64)
    gram += segment * rows * rows
    risen += segment * 3 * rows
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
    covered = tl.zeros([BLOCK], dtype=tl.int32)

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
    gain = tl.zeros([BLOCK], dtype=tl.int64)
    if OBJECTIVE == "coverage" or OBJECTIVE == "demand":
        for start in range(0, rows, ROWS):
            j = start + tl.arange(0, ROWS)
            other = j < rows
            if HAS_VALID:
                other = tl.load(valid + segment * rows + j, mask=j < rows, other=0) != 0
            s = _rows_of(gram, j, other, i, inside, rows)
            more = tl.where(other[:, None], tl.maximum(_units(s), 0), 0).to(tl.int64)
            if OBJECTIVE == "demand" and HAS_WEIGHT:
                asked = tl.load(weight + segment * rows + j, mask=other, other=0.0)
                more *= _demand(asked)[:, None]
            gain += tl.sum(more, axis=0)
    rest = tl.zeros([BLOCK], dtype=tl.float64)
    if OBJECTIVE == "dpp":
        diagonal = tl.load(gram + i.to(tl.int64) * (rows + 1), mask=inside, other=0.0)
        rest = w.to(tl.float64) * diagonal.to(tl.float64) * w.to(tl.float64)
    near = tl.full([BLOCK], float("inf"), dtype=tl.float32)

    for step in range(number):
        # 2. The best row that is not taken; the first of equals.
        if OBJECTIVE == "coverage":
            score = gain.to(tl.float32) * w
        if OBJECTIVE == "dpp":
            usable = tl.where(rest > 1e-6, rest, 0.0)
            open_score = tl.where(taken, -1.0, usable)
        elif OBJECTIVE == "demand":
            open_score = tl.where(taken, -1, gain)
        else:
            open_score = tl.where(taken, -float("inf"), score)
        highest = tl.max(open_score, axis=0)
        best = tl.min(tl.where((open_score == highest) & (taken == 0), i, BLOCK), axis=0)
        taken = taken | (i == best)

        # 3. State with that row in the set.
        s = tl.load(gram + best.to(tl.int64) * rows + i, mask=inside, other=0.0)
        if OBJECTIVE == "max-min":
            near = tl.minimum(near, 1.0 - s)
            score = near
        if OBJECTIVE == "coverage" or OBJECTIVE == "demand":
            # Only where the cover rises does a gain change. Those rows, with their cover before and
            # after, go to a list; the gains lose the difference.
            after = tl.maximum(covered, _units(s))
            rises = exists & (after > covered)
            place = tl.cumsum(rises.to(tl.int32), axis=0) - 1
            tl.store(risen + place, i, mask=rises)
            tl.store(risen + rows + place, covered, mask=rises)
            tl.store(risen + 2 * rows + place, after, mask=rises)
            count = tl.sum(rises.to(tl.int32), axis=0)
            covered = after
            tl.debug_barrier()
            lost = tl.zeros([BLOCK], dtype=tl.int64)
            for start in range(0, count, ROWS):
                at = start + tl.arange(0, ROWS)
                listed = at < count
                j = tl.load(risen + at, mask=listed, other=0)
                before = tl.load(risen + rows + at, mask=listed, other=0)[:, None]
                now = tl.load(risen + 2 * rows + at, mask=listed, other=0)[:, None]
                u = _units(_rows_of(gram, j, listed, i, inside, rows))
                less = (tl.maximum(u - before, 0) - tl.maximum(u - now, 0)).to(tl.int64)
                if OBJECTIVE == "demand" and HAS_WEIGHT:
                    asked = tl.load(weight + segment * rows + j, mask=listed, other=0.0)
                    less *= _demand(asked)[:, None]
                lost += tl.sum(less, axis=0)
            gain -= lost
            tl.debug_barrier()
        if OBJECTIVE == "dpp":
            seen = tl.zeros([BLOCK], dtype=tl.float64)
            for t in range(step):
                c = tl.load(cholesky + t * rows + i, mask=inside, other=0.0)
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
