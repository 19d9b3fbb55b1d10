"""The order of each row's scores, the highest first: a stable sort that gives indices alone.

Ties go to the lower index and NaN is above every number, as in `top_k_sorted`.
"""

from __future__ import annotations

import torch

from vtprune_kernels._triton import register_op, use_triton
from vtprune_kernels.ranked_triton import ranked_triton
from vtprune_kernels.spec import EXACT, Spec, scores_alone

__all__ = ["SPECS", "ranked"]

_MOST_SCORES = 16384
"""Longest row for the kernel, whose work grows with its square. Longer ones go to the reference."""

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def ranked(scores: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Return the indices of each row's scores, the highest first.

    Args:
        scores: `[segments, N]`, any float dtype.
        valid: `[segments, N]` bool, which scores exist (see `segments`): the indices of others
            come last, ascending.

    Returns:
        `[segments, N]` int64, a permutation in each row.
    """
    fits = scores.shape[-1] <= _MOST_SCORES and scores.dtype in _DTYPES
    if fits and use_triton(scores):
        return _ranked_op(scores, valid)
    return ranked_reference(scores, valid)


def ranked_reference(scores: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Plain torch: a stable sort, and with a mask a second one that brings what exists forward."""
    if valid is None:
        return scores.argsort(dim=1, descending=True, stable=True)
    # Among scores that do not exist the index decides, so what they are must not.
    order = scores.masked_fill(~valid, 0.0).argsort(dim=1, descending=True, stable=True)
    padding = (~valid).gather(1, order).to(torch.int8)
    return order.gather(1, padding.argsort(dim=1, stable=True))


def _ranked_fake(scores: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    return scores.new_empty(scores.shape, dtype=torch.int64)


_ranked_op = register_op("ranked", ranked_triton, ranked_reference, _ranked_fake)


SPECS = (
    Spec(
        name="ranked",
        op=ranked,
        reference=ranked_reference,
        launcher=ranked_triton,
        registered=_ranked_op,
        make_inputs=scores_alone,
        # Comparisons only.
        tolerance={torch.float32: EXACT, torch.float16: EXACT, torch.bfloat16: EXACT},
    ),
)
