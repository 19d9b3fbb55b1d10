"""VisPruner: important tokens by the encoder's own attention, diverse ones by removing duplicates.

Zhang et al., "Beyond Text-Visual Attention: Exploiting Visual Cues for Effective Token Pruning in
VLMs", ICCV 2025, https://arxiv.org/abs/2412.01818 (code Apache-2.0, not used here).

With importance s (attention of the layer that produced the features), features f and a budget T:

    T_imp = floor(T * important_ratio)
    order = tokens by s, descending
    keep order[:T_imp]; of the rest, in that order, keep what iterative removal leaves:
        split the list by alternating position into a and b; drop the `step` rows of a whose highest
        cosine similarity to b is greatest; continue with the sorted rest of a, followed by b

Deviations from the published code; none changes the result where the code runs without error in
exact arithmetic and without ties:

- Ties go to the lower index; the code's `argsort` leaves them open, and its half-precision
  scores tie often.
- The removal works for lists of any length; the code raises on odd ones.
- One Gram matrix is computed in fixed point instead of a GEMM each round, so that the same
  features give the same tokens in every batch and on every rank (`vtprune_kernels.cosine_gram`).
- Kept tokens are gathered before the projector, which works token by token; the code projects all.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from vtprune_kernels import cosine_gram, dedup, picked_sorted, ranked, top_k_sorted
from vtprune_kernels.segments import ABSENT

from vllm_pruner.methods.base import Method, Need, Options, VisualTokens
from vllm_pruner.methods.ragged import Ragged, first_of_each

__all__ = ["VISPRUNER", "VisPrunerOptions"]


class VisPrunerOptions(Options):
    """Options of `vispruner`."""

    important_ratio: float = Field(default=0.5, ge=0.0, le=1.0, allow_inf_nan=False)
    """Share of the budget filled by importance alone; 1 is `attention`, 0 is pure diversity."""

    step: int = Field(default=8, ge=1)
    """Tokens removed per round; the paper's code has 8."""


def select(tokens: VisualTokens, keep: int, options: VisPrunerOptions) -> torch.Tensor:
    """Return `[images, keep]` indices; see `Method.select`."""
    assert tokens.importance is not None
    if tokens.ragged is not None:
        return _select_ragged(tokens, tokens.ragged, keep, options)
    # 1. Rank by importance.
    important = math.floor(keep * options.important_ratio)
    if important == keep:
        return top_k_sorted(tokens.importance, keep)
    order = ranked(tokens.importance)
    # 2. Thin out the rest, in order of importance, down to the remaining budget.
    gram = cosine_gram(tokens.features, order[:, important:])
    diverse = dedup(gram, keep - important, options.step)
    # 3. Back to raster order.
    return picked_sorted(order, important, diverse, keep)


def _select_ragged(
    tokens: VisualTokens, ragged: Ragged, keep: int, options: VisPrunerOptions
) -> torch.Tensor:
    """The same steps for images of unequal length, whose pools begin in different places."""
    assert tokens.importance is not None
    ratio, end = options.important_ratio, tokens.importance.shape[1]
    # 1. Padding ranks last.
    if ratio == 1.0:
        return top_k_sorted(tokens.importance, keep, ragged.valid(end), ragged.keeps)
    order = ranked(tokens.importance, ragged.valid(end))
    # As the host computes it: both multiply in IEEE double precision.
    important = (ragged.keeps.double() * ratio).floor().long()
    # 2. Each image's pool follows its own number of important tokens.
    width = end - math.floor(ragged.least * ratio)
    exists = first_of_each(ragged.lengths - important, width)
    places = important.unsqueeze(1) + torch.arange(width, device=order.device)
    pool = order.gather(1, places.clamp_max(end - 1)).where(exists, ABSENT)
    gram = cosine_gram(tokens.features, pool, exists)
    # One more than the largest budget leaves: a product can round up to the next integer.
    most = math.floor(keep * ratio)
    left = dedup(gram, min(keep - most + 1, width), options.step, exists, ragged.keeps - important)
    # 3. Back to raster order.
    return picked_sorted(order, most, left, keep, important)


VISPRUNER = Method("vispruner", select, VisPrunerOptions, frozenset({Need.IMPORTANCE}), ragged=True)
