"""SCOPE: the tokens that cover the image best, salient ones first.

Deng et al., "SCOPE: Saliency-Coverage Oriented Token Pruning for Efficient Multimodal LLMs",
NeurIPS 2025, https://arxiv.org/abs/2510.24214 (code without a licence file, not used here). With
cosine similarities S of the features, importance a and initially cov_j = 0, repeat `keep` times:

    gain_i = a_i ** alpha * sum_j max(0, S_ji - cov_j)      over the tokens i not kept yet
    keep the token p of the highest gain; cov_j = max(cov_j, S_jp)

Deviations from the published code:

- Ties go to the lower index; S is in integer multiples of 2**-22, so that the sums are exact.
- Importance is the mean over heads, not the sum; they differ by a constant factor.
- Without a class token, importance is the attention that a token receives.
- Negative importance, which no encoder gives, counts as 0.
"""

from __future__ import annotations

import torch
from pydantic import Field
from vtprune_kernels import cosine_gram, greedy_select, relative_scores

from vllm_pruner.methods.base import Method, Need, Options, VisualTokens

__all__ = ["SCOPE", "ScopeOptions"]


class ScopeOptions(Options):
    """Options of `scope`."""

    alpha: float = Field(default=1.0, ge=0.0, allow_inf_nan=False)
    """Weight of saliency: 0 is pure coverage. The paper's scripts have 1."""


def select(tokens: VisualTokens, keep: int, options: ScopeOptions) -> torch.Tensor:
    """Return `[images, keep]` indices; see `Method.select`."""
    assert tokens.importance is not None
    valid = counts = None
    if (ragged := tokens.ragged) is not None:
        valid, counts = ragged.valid(tokens.importance.shape[1]), ragged.keeps
    # Scale the highest to 1, so that its power stays finite; the objective is scale-invariant.
    weight = relative_scores(tokens.importance, valid)
    if options.alpha != 1.0:
        weight = weight.double().pow(options.alpha).float()
    gram = cosine_gram(tokens.features, valid=valid)
    return greedy_select(gram, keep, "coverage", weight, valid, counts)


SCOPE = Method("scope", select, ScopeOptions, frozenset({Need.IMPORTANCE}), ragged=True)
