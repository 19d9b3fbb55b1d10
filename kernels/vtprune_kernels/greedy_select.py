"""Greedy selection of k rows by one of four objectives, behind one loop.

For one segment with similarities S (`gram`) and weights w, `keep` times:

    take the unselected row of the highest score, ties to the lower index; update with its column

    "max-min"    score  near[i], in the first step min_{j != i} (1 - S[i, j])
                 then   near[i] = min(near[i], 1 - S[i, p])
    "coverage"   score  w[i] * sum_j max(0, S[j, i] - cover[j])
                 then   cover[j] = max(cover[j], S[j, p])
    "demand"     score  sum_j w[j] * max(0, S[j, i] - cover[j])
                 then   cover[j] = max(cover[j], S[j, p])
    "dpp"        score  rest[i], at first w[i]**2 S[i, i]
                 then   e[i] = (w[p] S[p, i] w[i] - sum_c c[p] c[i]) / sqrt(rest[p])
                        e joins the c, rest[i] = rest[i] - e[i]**2

"max-min" is DivPrune, "coverage" is SCOPE (facility location times saliency), "demand" is facility
location whose weights say what should be covered, not who may cover, "dpp" is CDPruner (a
determinantal point process, by incremental Cholesky). Near ties are decided by the last bit, so the
arithmetic is fixed: coverage adds S, clipped to 1, in whole multiples of 2**-22, which is exact in
any order; demand counts w in whole multiples of 2**-30 besides, which is exact as long as a
segment's w add up to 1 at most; the point process is in float64, where what remains of a duplicate,
anything below 1e-6, is 0.

Sources: DivPrune (arXiv 2503.02175), SCOPE (2510.24214), CDPruner (2506.10967), all from the
formulas in `methods.md` section 3. Deviation: the nearest other row in the first step of "max-min"
is over j != i, where DivPrune takes the second smallest distance of the column, itself included.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from vtprune_kernels._triton import register_op, traced_on_cpu, use_triton
from vtprune_kernels.cosine_gram import cosine_gram_reference
from vtprune_kernels.greedy_select_triton import greedy_select_triton
from vtprune_kernels.segments import each_alone
from vtprune_kernels.spec import EXACT, Spec, features

__all__ = ["SPEC", "greedy_select"]

_OBJECTIVES = ("max-min", "coverage", "dpp", "demand")
_ONE = 2.0**22
_ALL_DEMAND = 2.0**30
_DUPLICATE = 1e-6
"""A Gram of float32 entries is positive semidefinite up to some 1e-7."""

_MOST_ROWS = 16384


def greedy_select(
    gram: torch.Tensor,
    keep: int,
    objective: str,
    weight: torch.Tensor | None = None,
    valid: torch.Tensor | None = None,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return which rows a greedy maximisation takes.

    Args:
        gram: `[segments, N, N]` float32, symmetric, similarity of every pair, finite.
        keep: rows to take in each segment, 0 to N.
        objective: "max-min", "coverage", "demand" or "dpp".
        weight: `[segments, N]` float32, non-negative and finite, for "demand" with a sum of 1 at
            most; ones by default (for "demand" equal shares), not used by "max-min".
        valid: `[segments, N]` bool, which rows exist (see `segments`): others are neither taken nor
            counted as neighbours or as covered.
        counts: `[segments]` integers, how many of `keep` each segment takes (see `segments`).

    Returns:
        `[segments, keep]` int64, ascending, with -1 at the end where a segment takes fewer.

    Raises:
        ValueError: an unknown objective, or `keep` is out of range.
    """
    if objective not in _OBJECTIVES:
        raise ValueError(f"objective is {objective!r}; allowed: {', '.join(_OBJECTIVES)}")
    if not 0 <= keep <= gram.shape[-1]:
        raise ValueError(f"keep is {keep}; allowed: 0 to {gram.shape[-1]}")
    if traced_on_cpu(gram) or (gram.shape[-1] <= _MOST_ROWS and use_triton(gram)):
        return _greedy_select_op(gram, keep, objective, weight, valid, counts)
    return greedy_select_reference(gram, keep, objective, weight, valid, counts)


def greedy_select_reference(
    gram: torch.Tensor,
    keep: int,
    objective: str,
    weight: torch.Tensor | None = None,
    valid: torch.Tensor | None = None,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Plain torch: segments of one length together, of unequal ones each alone."""
    take = partial(_take, objective=objective)
    if valid is None and counts is None:
        return take(gram, keep, weight)
    return each_alone(take, gram, keep, valid, counts, weight)


def _take(
    gram: torch.Tensor, keep: int, weight: torch.Tensor | None, objective: str
) -> torch.Tensor:
    """All segments advance together, one row at a time."""
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
    demand = (weight.double() * _ALL_DEMAND).round().unsqueeze(1)
    for step in range(keep):
        if objective == "max-min":
            score = (1 - gram).masked_fill(eye, float("inf")).amin(dim=2) if step == 0 else near
        elif objective == "coverage":
            gain = (units - cover[:, :, None]).clamp_min(0).sum(dim=1)
            score = gain.float() * weight
        elif objective == "demand":
            gain = (units - cover[:, :, None]).clamp_min(0)
            score = torch.bmm(demand, gain).squeeze(1)
        else:
            score = rest.where(rest > _DUPLICATE, 0.0)
        # 2. The best row; argmax gives the first of equals.
        best = score.masked_fill(taken, float("-inf")).argmax(dim=1)
        taken[each, best] = True
        # 3. State with that row in the set.
        if objective == "max-min":
            near = torch.minimum(near, 1 - gram[each, best])
        elif objective in ("coverage", "demand"):
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


def _greedy_select_fake(
    gram: torch.Tensor,
    keep: int,
    objective: str,
    weight: torch.Tensor | None = None,
    valid: torch.Tensor | None = None,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    return gram.new_empty((gram.shape[0], keep), dtype=torch.int64)


_greedy_select_op = register_op(
    "greedy_select",
    greedy_select_triton,
    greedy_select_reference,
    _greedy_select_fake,
)


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
    objective = objective or _OBJECTIVES[size % 4]
    if objective == "demand":
        weight = weight / size
    return {
        "gram": cosine_gram_reference(rows).to(device),
        "keep": size // 9 if large else max(1, min(size // 9, 12)),
        "objective": objective,
        "weight": weight.to(device),
    }


SPEC = Spec(
    name="greedy_select",
    op=greedy_select,
    reference=greedy_select_reference,
    launcher=greedy_select_triton,
    registered=_greedy_select_op,
    make_inputs=_make_inputs,
    # The arithmetic is fixed on both sides.
    tolerance={torch.float32: EXACT, torch.float16: EXACT, torch.bfloat16: EXACT},
)
