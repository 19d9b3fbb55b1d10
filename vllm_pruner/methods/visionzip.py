"""VisionZip: the tokens that the encoder attends to most, and the rest merged into a few.

Yang et al., "VisionZip: Longer is Better but Not Necessary in Vision Language Models", CVPR 2025,
https://arxiv.org/abs/2412.04467 (code Apache-2.0, not used here). With a budget T, importance s,
features F and keys k (mean over heads) of the layer that produces them:

    C          = floor(T * contextual_ratio);  D = T - C
    dominant   = the D tokens of highest s
    targets    = the first C of every floor(R / C)-th of the R others, in raster order
    each other token joins the target whose key has the highest cosine to its own
    contextual = F_target + mean of the F that joined it (0 if none did)

Deviations from the published code:

- The class token is not kept: vLLM drops it before the projector. D counts patches only.
- A contextual row takes its target's place, so that the decoder reads the image in raster order;
  the code appends them all at the end.
- Without a class token, importance is the attention that a token receives.
- Ties go to the lower index; means are exact sums (`vllm_pruner.methods.merge`), rounded once.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from vtprune_kernels import gather_rows, row_max_cosine, top_k_sorted

from vllm_pruner.methods.base import Kept, Method, Need, Options, VisualTokens
from vllm_pruner.methods.merge import mix

__all__ = ["VISIONZIP", "VisionZipOptions"]


class VisionZipOptions(Options):
    """Options of `visionzip`."""

    contextual_ratio: float = Field(default=10 / 64, ge=0.0, le=1.0, allow_inf_nan=False)
    """Share of the budget for merged tokens: 10 of 64, 20 of 128, 30 of 192 in the paper."""


def select(tokens: VisualTokens, keep: int, options: VisionZipOptions) -> Kept:
    """Return `[images, keep]` indices and rows; see `Method.select`."""
    assert tokens.importance is not None
    assert tokens.keys is not None
    total = tokens.features.shape[1]
    contextual = math.floor(keep * options.contextual_ratio)
    # 1. The dominant tokens, and the targets among the others.
    dominant = torch.zeros_like(tokens.importance, dtype=torch.bool)
    dominant.scatter_(1, top_k_sorted(tokens.importance, keep - contextual), True)
    others = dominant.to(torch.int8).argsort(dim=1, stable=True)[:, : total - keep + contextual]
    target = others[:, :: max(1, others.shape[1] // max(1, contextual))][:, :contextual]
    kept = dominant.scatter(1, target, True)
    index = top_k_sorted(kept.to(tokens.importance.dtype), keep)
    rows = gather_rows([tokens.features], index)[0]
    if contextual == 0:
        return Kept(index, rows)
    # 2. The target, by token index, that each other token joins; -1 for kept tokens.
    _, nearest = row_max_cosine(tokens.keys, gather_rows([tokens.keys], target)[0])
    joined = target.gather(1, nearest).masked_fill(kept, -1)
    # 3. Add the mean of the joined tokens to their target; none join a dominant token.
    member = (joined[:, None, :] == index[:, :, None]).double()
    mean = mix(member, tokens.features) / member.sum(dim=2, keepdim=True).clamp_min(1.0)
    return Kept(index, (rows.double() + mean).to(rows.dtype))


VISIONZIP = Method(
    "visionzip", select, VisionZipOptions, frozenset({Need.IMPORTANCE, Need.KEYS}), merges=True
)
