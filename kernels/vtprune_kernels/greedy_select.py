"""Greedy selection of k rows by one of three objectives, behind one loop.

For one segment with similarities S (`gram`) and weights w, `keep` times:

    take the unselected row of the highest score, ties to the lower index; update with its column

    "max-min"    score  near[i], in the first step min_{j != i} (1 - S[i, j])
                 then   near[i] = min(near[i], 1 - S[i, p])
    "coverage"   score  w[i] * sum_j max(0, S[j, i] - cover[j])
                 then   cover[j] = max(cover[j], S[j, p])
    "dpp"        score  rest[i], at first w[i]**2 S[i, i]
                 then   e[i] = (w[p] S[p, i] w[i] - sum_c c[p] c[i]) / sqrt(rest[p])
                        e joins the c, rest[i] = rest[i] - e[i]**2

"max-min" is DivPrune, "coverage" is SCOPE (facility location times saliency), "dpp" is CDPruner (a
determinantal point process, by incremental Cholesky). Near ties are decided by the last bit, so the
arithmetic is fixed: coverage adds S, clipped to 1, in whole multiples of 2**-22, which is exact in
any order, and the point process is in float64, where what remains of a duplicate, anything below
1e-6, is 0.

One launch for all segments, one program each, all steps inside; scores and states are registers,
and only what rows exchange (cover, the c) goes through memory that stays in the L1 or L2 cache. A
step reads one row of S for "max-min" (2.3 KB of 576), all of S for "coverage", every c for "dpp".

Sources: DivPrune (arXiv 2503.02175), SCOPE (2510.24214), CDPruner (2506.10967), all from the
formulas in `methods.md` section 3. Deviation: the nearest other row in the first step of "max-min"
is over j != i, where DivPrune takes the second smallest distance of the column, itself included.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import Any

import torch

from vtprune_kernels._triton import next_power_of_2, register_op, tl, triton, use_triton
from vtprune_kernels.cosine_gram import cosine_gram_reference
from vtprune_kernels.spec import EXACT, Spec, features

__all__ = ["SPEC", "greedy_select"]

_OBJECTIVES = ("max-min", "coverage", "dpp")
_ONE = 2.0**22
_DUPLICATE = 1e-6
"""A Gram of float32 entries is positive semidefinite up to some 1e-7."""

_MOST_ROWS = 16384
_TILE_ELEMENTS = 8192
"""Elements of S read together: 16 for each of 512 threads. Not yet swept on a GPU."""


def greedy_select(
    gram: torch.Tensor, keep: int, objective: str, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Return which rows a greedy maximisation takes.

    Args:
        gram: `[segments, N, N]` float32, symmetric, similarity of every pair, finite.
        keep: rows to take in each segment, 0 to N.
        objective: "max-min", "coverage" or "dpp".
        weight: `[segments, N]` float32, non-negative and finite; ones by default, not used by
            "max-min".

    Returns:
        `[segments, keep]` int64, ascending.

    Raises:
        ValueError: an unknown objective, or `keep` is out of range.
    """
    if objective not in _OBJECTIVES:
        raise ValueError(f"objective is {objective!r}; allowed: {', '.join(_OBJECTIVES)}")
    if not 0 <= keep <= gram.shape[-1]:
        raise ValueError(f"keep is {keep}; allowed: 0 to {gram.shape[-1]}")
    if gram.shape[-1] <= _MOST_ROWS and use_triton(gram):
        return _greedy_select_op(gram, keep, objective, weight)
    return greedy_select_reference(gram, keep, objective, weight)


def greedy_select_reference(
    gram: torch.Tensor, keep: int, objective: str, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Plain torch: all segments advance together, one row at a time."""
    segments, rows, _ = gram.shape
    weight = gram.new_ones((segments, rows)) if weight is None else weight
    taken = torch.zeros((segments, rows), dtype=torch.bool, device=gram.device)
    each = torch.arange(segments, device=gram.device)
    eye = torch.eye(rows, dtype=torch.bool, device=gram.device)
    # 1. State and score before the first step.
    near = gram.new_full((segments, rows), float("inf"))
    cover = torch.zeros((segments, rows), dtype=torch.float64, device=gram.device)
    units = (gram.clamp(-1.0, 1.0) * _ONE).round().double()
    kernel = weight.double()[:, :, None] * gram.double() * weight.double()[:, None, :]
    rest = kernel.diagonal(dim1=1, dim2=2).clone()
    cholesky = kernel.new_zeros((segments, 0, rows))
    for step in range(keep):
        if objective == "max-min":
            score = (1 - gram).masked_fill(eye, float("inf")).amin(dim=2) if step == 0 else near
        elif objective == "coverage":
            gain = (units - cover[:, :, None]).clamp_min(0).sum(dim=1)
            score = gain.float() * weight
        else:
            score = rest.where(rest > _DUPLICATE, 0.0)
        # 2. The best row; argmax gives the first of equals.
        best = score.masked_fill(taken, float("-inf")).argmax(dim=1)
        taken[each, best] = True
        # 3. State with that row in the set.
        if objective == "max-min":
            near = torch.minimum(near, 1 - gram[each, best])
        elif objective == "coverage":
            cover = torch.maximum(cover, units[each, best])
        else:
            pivot = score[each, best]
            seen = torch.zeros_like(rest)
            for row in cholesky.unbind(1):  # in this order in the kernel too
                seen = seen + row[each, best].unsqueeze(1) * row
            e = (kernel[each, best] - seen) / pivot.sqrt().unsqueeze(1)
            e = e.where(pivot.unsqueeze(1) > 0, 0.0)
            cholesky = torch.cat([cholesky, e.unsqueeze(1)], dim=1)
            rest = rest - e * e
    # 4. In raster order: a stable sort brings the taken ones to the front, as they were.
    return taken.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :keep].contiguous()


def _greedy_select_triton(
    gram: torch.Tensor, keep: int, objective: str, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Launch one program a segment."""
    gram = gram.contiguous()
    segments, rows, _ = gram.shape
    kept = gram.new_empty((segments, keep), dtype=torch.int64)
    if kept.numel() == 0:
        return kept
    block = next_power_of_2(rows)
    cholesky_rows = keep if objective == "dpp" else 0
    _greedy_select_kernel[(segments,)](
        gram,
        gram if weight is None else weight.contiguous(),
        kept,
        gram.new_empty((segments, rows), dtype=torch.int32),
        gram.new_empty((segments, cholesky_rows, rows), dtype=torch.float64),
        rows,
        keep,
        OBJECTIVE=_OBJECTIVES.index(objective),
        HAS_WEIGHT=weight is not None,
        BLOCK=block,
        ROWS=max(1, _TILE_ELEMENTS // block),
        num_warps=16 if block >= 512 else 4,
        # A product that is not fused with the addition after it is the same on a CPU.
        enable_fp_fusion=False,
    )
    return kept


def _greedy_select_fake(
    gram: torch.Tensor, keep: int, objective: str, weight: torch.Tensor | None = None
) -> torch.Tensor:
    return gram.new_empty((gram.shape[0], keep), dtype=torch.int64)


_greedy_select_op = register_op(
    "greedy_select(Tensor gram, int keep, str objective, Tensor? weight=None) -> Tensor",
    _greedy_select_triton,
    greedy_select_reference,
    _greedy_select_fake,
)


@triton.jit
def _units(similarity):
    """Count whole multiples of 2**-22, half to even: adding 1.5 * 2**23 shifts a fraction out."""
    scaled = tl.minimum(tl.maximum(similarity, -1.0), 1.0) * 4194304.0
    return ((scaled + 12582912.0) - 12582912.0).to(tl.int32)


@triton.jit
def _greedy_select_kernel(
    gram,
    weight,
    kept,
    cover,
    cholesky,
    rows,
    keep,
    OBJECTIVE: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    segment = tl.program_id(0).to(tl.int64)
    gram += segment * rows * rows
    cover += segment * rows
    cholesky += segment * keep * rows
    i = tl.arange(0, BLOCK)
    inside = i < rows
    w = tl.full([BLOCK], 1.0, dtype=tl.float32)
    if HAS_WEIGHT:
        w = tl.load(weight + segment * rows + i, mask=inside, other=0.0)
    taken = i >= rows
    score = tl.zeros([BLOCK], dtype=tl.float32)
    covered = tl.zeros([BLOCK], dtype=tl.int32)

    # 1. State and score before the first step.
    if OBJECTIVE == 0:
        score = tl.full([BLOCK], float("inf"), dtype=tl.float32)
        for start in range(0, rows, ROWS):
            j = start + tl.arange(0, ROWS)
            listed = (j < rows)[:, None] & inside[None, :] & (j[:, None] != i[None, :])
            s = tl.load(
                gram + j[:, None].to(tl.int64) * rows + i[None, :],
                mask=listed,
                other=-float("inf"),
            )
            score = tl.minimum(score, tl.min(1.0 - s, axis=0))
    if OBJECTIVE == 1:
        tl.store(cover + i, covered, mask=inside)
        tl.debug_barrier()
    rest = tl.zeros([BLOCK], dtype=tl.float64)
    if OBJECTIVE == 2:
        diagonal = tl.load(gram + i.to(tl.int64) * (rows + 1), mask=inside, other=0.0)
        rest = w.to(tl.float64) * diagonal.to(tl.float64) * w.to(tl.float64)
    near = tl.full([BLOCK], float("inf"), dtype=tl.float32)

    for step in range(keep):
        # 2. The best row that is not taken; the first of equals.
        if OBJECTIVE == 1:
            gain = tl.zeros([BLOCK], dtype=tl.int64)
            for start in range(0, rows, ROWS):
                j = start + tl.arange(0, ROWS)
                s = tl.load(
                    gram + j[:, None].to(tl.int64) * rows + i[None, :],
                    mask=(j < rows)[:, None] & inside[None, :],
                    other=0.0,
                )  # [ROWS, BLOCK]
                has = tl.load(cover + j, mask=j < rows, other=0)
                more = tl.maximum(_units(s) - has[:, None], 0)
                gain += tl.sum(tl.where((j < rows)[:, None], more, 0).to(tl.int64), axis=0)
            score = gain.to(tl.float32) * w
        if OBJECTIVE == 2:
            usable = tl.where(rest > 1e-6, rest, 0.0)
            open_score = tl.where(taken, -1.0, usable)
        else:
            open_score = tl.where(taken, -float("inf"), score)
        highest = tl.max(open_score, axis=0)
        best = tl.min(tl.where((open_score == highest) & (taken == 0), i, BLOCK), axis=0)
        taken = taken | (i == best)

        # 3. State with that row in the set.
        s = tl.load(gram + best.to(tl.int64) * rows + i, mask=inside, other=0.0)
        if OBJECTIVE == 0:
            near = tl.minimum(near, 1.0 - s)
            score = near
        if OBJECTIVE == 1:
            covered = tl.maximum(covered, _units(s))
            tl.debug_barrier()
            tl.store(cover + i, covered, mask=inside)
            tl.debug_barrier()
        if OBJECTIVE == 2:
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
    chosen = taken & inside
    place = tl.cumsum(chosen.to(tl.int32), axis=0) - 1
    tl.store(kept + segment * keep + place, i.to(tl.int64), mask=chosen)


def _make_inputs(
    kind: str,
    size: int,
    dtype: torch.dtype,
    device: torch.device | str,
    large: bool = False,
    objective: str | None = None,
) -> dict[str, Any]:
    segments, width = (8, 1024) if large else (2, 24)
    rows = features(kind, (segments, size, width), dtype, "cpu")
    weight = torch.rand((segments, size), generator=torch.Generator().manual_seed(size))
    return {
        "gram": cosine_gram_reference(rows).to(device),
        "keep": max(1, size // 9),
        "objective": objective or _OBJECTIVES[size % 3],
        "weight": weight.to(device),
    }


SPEC = Spec(
    name="greedy_select",
    op=greedy_select,
    reference=greedy_select_reference,
    launcher=_greedy_select_triton,
    registered=_greedy_select_op,
    make_inputs=_make_inputs,
    # The arithmetic is fixed on both sides.
    tolerance={torch.float32: EXACT, torch.float16: EXACT, torch.bfloat16: EXACT},
)
