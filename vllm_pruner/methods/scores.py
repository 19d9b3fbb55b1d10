"""Scores as integers, whose sums neither padding nor the order of addition changes, and scores of
different kinds on one scale.

A score is rounded to a multiple of 2**-40 of the power of two above the highest one. Of float32
scores, those down to 2**-16 of the highest are such multiples already. Up to 2**22 of them add up
in 64 bits; a float64 holds the sum of up to 8,192 without rounding it.
"""

from __future__ import annotations

import torch

__all__ = ["nonnegative", "shares", "unit_below", "whole"]

_UNITS = 2.0**40
_LEAST = 2.0**-149
"""The least float32 above 0, in place of a highest score of 0."""


def nonnegative(scores: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    """Return scores as float32, finite and 0 or more, for what encoders do not give.

    Args:
        scores: `[..., images, N]`, any scores; NaN counts as 0.
        valid: `[images, N]` bool, false for padding, which gets 0; None if there is none.
    """
    scores = scores.float().nan_to_num(0.0).clamp_min(0.0)
    return scores if valid is None else scores.where(valid, 0.0)


def unit_below(highest: torch.Tensor) -> torch.Tensor:
    """Return the unit of scores up to `highest`, `[..., 1]`, 0 or more: a power of two, float64."""
    highest = highest.double().clamp_min(_LEAST)
    return highest / torch.frexp(highest).mantissa / _UNITS  # exact: a power of two is left


def whole(scores: torch.Tensor, unit: torch.Tensor | float) -> torch.Tensor:
    """Return scores `[..., N]` as int64 multiples of a unit, float64 `[..., 1]` or one number."""
    return (scores / unit).round().long()


def shares(scores: torch.Tensor) -> torch.Tensor:
    """Return each row of `[..., N]`, 0 or more, as shares of its total in float64; a row of zeros
    stays zeros. Zeros as padding change nothing."""
    if scores.shape[-1] == 0:
        return scores.double()
    unit = unit_below(scores.amax(dim=-1, keepdim=True))
    total = whole(scores, unit).sum(dim=-1, keepdim=True).clamp_min(1)
    return scores / unit / total
