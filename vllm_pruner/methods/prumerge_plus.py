"""PruMerge+: salient tokens and an even grid, each merged with similar tokens, and one token for
the rest.

Shang et al., "LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal Models", ICCV
2025, https://arxiv.org/abs/2403.15388 (code Apache-2.0, not used here). With attention a, features
F, keys k and a budget T:

    salient  = the round((T - 1) / 4) tokens of highest a
    grid     = evenly spaced ones of the others, so that T - 1 are chosen in all
    kept_i   = F_i + sum of a_j F_j over the 32 tokens j whose keys are most similar to that of i
    extra    = sum of a_j F_j over all tokens that are not kept

Deviations from the published code:

- **A fixed budget.** The code counts the outliers of a (above the third quartile plus 1.5 times the
  interquartile range), keeps that many salient tokens and about three times as many on the grid;
  the count depends on the image, so a prompt cannot be sized by it. The ratio 1:3 is kept.
- a is importance (mean over heads, the layer of the features) and k the mean over heads; the code
  computes one attention over the full width of the last layer, which vLLM does not build.
- Rows are in raster order, the extra one in place of the most salient token that is not kept. The
  code has the salient ones first, then the grid, then the extra one.
- At T = N nothing is merged, and at T = 1 there is no extra token.
"""

from __future__ import annotations

import torch
from vtprune_kernels import cosine_gram, gather_rows, top_k_sorted

from vllm_pruner.methods.base import Kept, Method, Need, Options, VisualTokens
from vllm_pruner.methods.merge import mix

__all__ = ["PRUMERGE_PLUS"]

_SIMILAR, _SALIENT_SHARE = 32, 4


def select(tokens: VisualTokens, keep: int, options: Options) -> torch.Tensor | Kept:
    """Return `[images, keep]` indices and rows; see `Method.select`."""
    assert tokens.importance is not None
    assert tokens.keys is not None
    images, total, _ = tokens.features.shape
    if keep in (0, total):
        return torch.arange(keep, device=tokens.features.device).expand(images, keep)
    chosen = _chosen(tokens.importance, max(1, keep - 1))
    # 1. Each chosen token gathers its most similar ones, weighted by their attention.
    kept = top_k_sorted(chosen.float(), max(1, keep - 1))
    # Not `gather_rows`: it would compile a kernel for each number of tokens.
    similar = cosine_gram(tokens.keys).take_along_dim(kept.unsqueeze(2), dim=1)
    similar = similar.scatter(2, kept.unsqueeze(2), -torch.inf)  # itself
    order = similar.argsort(dim=2, descending=True, stable=True)
    nearest = order[:, :, : min(_SIMILAR, total - 1)]
    weights = torch.zeros_like(similar).scatter(2, nearest, 1.0) * tokens.importance.unsqueeze(1)
    # 2. The extra one gathers all tokens that are not chosen.
    if keep > 1:
        rest = tokens.importance.masked_fill(chosen, 0.0).unsqueeze(1)
        weights = torch.cat([weights, rest], dim=1)
        most = tokens.importance.masked_fill(chosen, -torch.inf).argmax(dim=1, keepdim=True)
        kept = torch.cat([kept, most], dim=1)
    # 3. Add up, in raster order.
    rows = mix(weights, tokens.features)
    own = gather_rows([tokens.features], kept)[0][:, : max(1, keep - 1)].double()
    rows[:, : own.shape[1]] += own
    index, place = kept.sort(dim=1)
    return Kept(index, gather_rows([rows.to(tokens.features.dtype)], place)[0])


def _chosen(importance: torch.Tensor, count: int) -> torch.Tensor:
    """Return a mask `[images, N]` of the salient tokens and evenly spaced ones of the others."""
    salient = round(count / _SALIENT_SHARE)
    chosen = torch.zeros_like(importance, dtype=torch.bool)
    chosen.scatter_(1, top_k_sorted(importance, salient), True)
    others = chosen.to(torch.int8).argsort(dim=1, stable=True)[:, : importance.shape[1] - salient]
    spaced = torch.arange(count - salient, device=importance.device)
    spaced = (2 * spaced + 1) * others.shape[1] // (2 * max(1, count - salient))
    return chosen.scatter(1, others[:, spaced], True)


PRUMERGE_PLUS = Method(
    "prumerge+", select, needs=frozenset({Need.IMPORTANCE, Need.KEYS}), merges=True
)
