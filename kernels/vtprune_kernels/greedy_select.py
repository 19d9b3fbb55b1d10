"""Greedy selection of k rows by one of four objectives, behind one loop.

For one segment with similarities S (`gram`) and weights w, `keep` times:

    take the unselected row of the highest score, ties to the lower index; update the scores

    "max-min"    DivPrune: the distance to the nearest row of the set
    "coverage"   SCOPE: facility location times the row's own weight
    "demand"     facility location whose weights say what should be covered
    "dpp"        CDPruner: a determinantal point process

Scores, updates and sources: `greedy_objectives`, which is also the reference's arithmetic.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from vtprune_kernels._triton import register_op, use_triton
from vtprune_kernels.cosine_gram import cosine_gram_reference
from vtprune_kernels.greedy_objectives import OBJECTIVES
from vtprune_kernels.greedy_select_triton import greedy_select_triton
from vtprune_kernels.one_thread import one_thread
from vtprune_kernels.segments import each_alone
from vtprune_kernels.spec import EXACT, Spec, features

__all__ = ["SPECS", "greedy_select"]

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
    if objective not in OBJECTIVES:
        raise ValueError(f"objective is {objective!r}; allowed: {', '.join(OBJECTIVES)}")
    if not 0 <= keep <= gram.shape[-1]:
        raise ValueError(f"keep is {keep}; allowed: 0 to {gram.shape[-1]}")
    # On a CPU too, as one opaque step: the reference asks the host, which no kernel does.
    if gram.is_cpu or (gram.shape[-1] <= _MOST_ROWS and use_triton(gram)):
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
    state = OBJECTIVES[objective](gram, weight)
    taken = torch.zeros((segments, rows), dtype=torch.bool, device=gram.device)
    with one_thread():
        for _ in range(keep):
            # argmax gives the first of equals.
            best = state.score().masked_fill(taken, float("-inf")).argmax(dim=1)
            taken.scatter_(1, best.unsqueeze(1), True)
            state.take(best)
    # In raster order: a stable sort brings the taken ones to the front, as they were.
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
    *,
    objective: str,
) -> dict[str, Any]:
    segments, width = (8, 1024) if large else (2, 24)
    rows = features(kind, (segments, size, width), dtype, "cpu")
    weight = torch.rand((segments, size), generator=torch.Generator().manual_seed(size))
    if objective == "demand":
        weight = weight / size
    return {
        "gram": cosine_gram_reference(rows).to(device),
        "keep": size // 9 if large else max(1, min(size // 9, 12)),
        "objective": objective,
        "weight": weight.to(device),
    }


SPECS = tuple(
    Spec(
        name="greedy_select",
        case=objective,
        op=greedy_select,
        reference=greedy_select_reference,
        launcher=greedy_select_triton,
        registered=_greedy_select_op,
        make_inputs=partial(_make_inputs, objective=objective),
        # The arithmetic is fixed on both sides.
        tolerance={torch.float32: EXACT, torch.float16: EXACT, torch.bfloat16: EXACT},
    )
    for objective in OBJECTIVES
)
