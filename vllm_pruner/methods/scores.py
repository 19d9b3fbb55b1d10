"""Bring scores of different kinds to one scale, so that they can be combined."""

from __future__ import annotations

import torch

__all__ = ["shares"]


def shares(scores: torch.Tensor) -> torch.Tensor:
    """Return each row of `[images, N]` as shares of its total; a row of zeros stays zeros."""
    return scores / scores.sum(dim=1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)
