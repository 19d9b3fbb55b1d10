"""Weighted sums of tokens, bit-identical in any batch and on every rank.

    mixed[i] = sum_j weights[i, j] * features[j]

A floating-point matrix product adds in an order that depends on sizes, threads and device. Here
both factors are rounded to integers: weights in units of 2**-19 of the largest in their row,
features in units of 2**-22 of the largest in their channel. With up to 2**12 tokens every partial
sum is below 2**53, so float64 holds it exactly, in any order.
"""

from __future__ import annotations

import torch

__all__ = ["mix"]

_WEIGHT_UNITS, _FEATURE_UNITS = 2.0**19, 2.0**22
_TINY = 2.0**-100
"""Least divisor, for rows and channels of zeros."""


def mix(weights: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Return the weighted sums of each image's tokens.

    Args:
        weights: `[images, K, N]`, any float type.
        features: `[images, N, D]`, any float type.

    Returns:
        `[images, K, D]` float64. Each summand is off by at most 2e-6 of the largest one.
    """
    whole_weights, weight_unit = _whole(weights, 2, _WEIGHT_UNITS)
    whole_features, feature_unit = _whole(features, 1, _FEATURE_UNITS)
    return (whole_weights @ whole_features) * weight_unit * feature_unit


def _whole(values: torch.Tensor, dim: int, units: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `values` as integers up to `units`, scaled along `dim`, and what 1 is worth."""
    values = values.double()
    if values.shape[dim] == 0:
        return values, values.new_ones(()).expand_as(values.sum(dim, keepdim=True))
    worth = values.abs().amax(dim=dim, keepdim=True).clamp_min(_TINY) / units
    return (values / worth).round(), worth
