"""DivPrune: the tokens that are farthest from each other.

Alvar et al., "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models", CVPR
2025, https://arxiv.org/abs/2503.02175 (code CC BY-NC 4.0, not used here). With the projected tokens
v and d(i, j) = 1 - cos(v_i, v_j):

    first   the token whose nearest other token is farthest:  arg max_i min_{j != i} d(i, j)
    then    repeatedly the token farthest from those kept:  arg max_i min_{s kept} d(i, s)

Deviations from the published code:

- Ties go to the lower index, and similarities are in fixed point (`vtprune_kernels.cosine_gram`).
- In the first step a token is excluded from its own neighbours by index; the code takes the second
  smallest distance of its column.
- Any number of tokens; the code keeps round(ratio * N).
"""

from __future__ import annotations

import torch
from vtprune_kernels import cosine_gram, greedy_select

from vllm_pruner.methods.base import Method, Need, Options, VisualTokens

__all__ = ["DIVPRUNE"]


def select(tokens: VisualTokens, keep: int, options: Options) -> torch.Tensor:
    """Return `[images, keep]` indices; see `Method.select`."""
    assert tokens.projected is not None
    if (ragged := tokens.ragged) is None:
        return greedy_select(cosine_gram(tokens.projected), keep, "max-min")
    valid = ragged.valid(tokens.projected.shape[1])
    gram = cosine_gram(tokens.projected, valid=valid)
    return greedy_select(gram, keep, "max-min", valid=valid, counts=ragged.keeps)


DIVPRUNE = Method("divprune", select, needs=frozenset({Need.PROJECTED}), ragged=True)
