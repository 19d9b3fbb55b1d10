"""Scores of each row as weights: float32, 0 or more, the highest of them 1.

    out[s, i] = float32(max(0, scores[s, i]) / max(0, scores[s, 0], scores[s, 1], ...))

The quotient is in float64 and rounded once, so it is the same number on every device. NaN counts
as 0, infinity as the highest float64, and a highest score below 2**-100 as 2**-100: a row of zeros
stays zeros.
"""

from __future__ import annotations

import torch

from vtprune_kernels._triton import register_op, use_triton
from vtprune_kernels.relative_scores_triton import relative_scores_triton
from vtprune_kernels.spec import EXACT, Spec, scores_alone

__all__ = ["SPECS", "relative_scores"]

_LEAST = 2.0**-100
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def relative_scores(scores: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Return each score as a share of the highest of its segment.

    Args:
        scores: `[segments, N]`, any float dtype.
        valid: `[segments, N]` bool, which scores exist (see `segments`): others get 0 and set no
            highest score.

    Returns:
        `[segments, N]` float32, 0 to 1.
    """
    if scores.dtype in _DTYPES and use_triton(scores):
        return _relative_scores_op(scores, valid)
    return relative_scores_reference(scores, valid)


def relative_scores_reference(
    scores: torch.Tensor, valid: torch.Tensor | None = None
) -> torch.Tensor:
    """Plain torch."""
    scores = scores.double()
    if valid is not None:
        scores = scores.where(valid, 0.0)
    scores = scores.nan_to_num(0.0).clamp_min(0.0)
    if scores.shape[1]:
        scores = scores / scores.amax(dim=1, keepdim=True).clamp_min(_LEAST)
    return scores.float()


def _relative_scores_fake(scores: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    return scores.new_empty(scores.shape, dtype=torch.float32)


_relative_scores_op = register_op(
    "relative_scores",
    relative_scores_triton,
    relative_scores_reference,
    _relative_scores_fake,
)


SPECS = (
    Spec(
        name="relative_scores",
        op=relative_scores,
        reference=relative_scores_reference,
        launcher=relative_scores_triton,
        registered=_relative_scores_op,
        make_inputs=scores_alone,
        # A division that IEEE 754 defines to the bit.
        tolerance={torch.float32: EXACT, torch.float16: EXACT, torch.bfloat16: EXACT},
    ),
)
