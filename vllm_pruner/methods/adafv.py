"""AdaFV: the encoder's attention and the question's relevance, in a self-adapting mixture.

Han et al., "AdaFV: Rethinking of Visual-Language alignment for VLM acceleration",
https://arxiv.org/abs/2501.09532 (ACL Findings 2025 as "AdaV"; code without a licence, not used
here). With the projected tokens v, the decoder's own input embeddings e of the question, the
encoder's attention c and a budget K:

    t_j = max over m of softmax_j(cos(e_m, v_j) / temperature)        softmax over visual tokens
    q   = floor(reserve * K)
    keep the q highest of t and the q highest of c
    of the remaining ones, the k1 highest of t and the k2 highest of c, with k1 + k2 = K - 2q
        chosen to maximise (sum of those k1 of t) * (sum of those k2 of c)

The split is found by trying all K - 2q + 1 of them; scaling either score changes nothing. A score
that is concentrated on few tokens saturates early and gets few of the places.

Deviations from the published code:

- A token that both lists choose counts once. The places that this frees go to the tokens with the
  highest share of either total, so that exactly K distinct tokens are kept; the code feeds such a
  token to the decoder twice.
- Without text after the image, saliency alone decides; the code assumes that there is text.
- Any K; the code rounds it down to an even number. There is no host sync.
- Sums are of integers (`methods.scores`), so that an image keeps the same tokens in any batch, also
  beside longer ones. Splits whose products agree in nine digits can change places by that; those
  that are equal in exact arithmetic are equal here, and the lower k1 wins.
- NaN and negative attention, which no encoder gives, count as 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from pydantic import Field
from torch.nn.functional import pad
from vtprune_kernels import text_relevance, top_k_sorted

from vllm_pruner.methods.base import Method, Need, Options, VisualTokens
from vllm_pruner.methods.scores import nonnegative, shares, unit_below, whole
from vllm_pruner.methods.texts import Texts

__all__ = ["ADAFV", "AdaFVOptions", "Lists", "lists"]


class AdaFVOptions(Options):
    """Options of `adafv`."""

    reserve: float = Field(default=0.25, ge=0.0, le=0.5, allow_inf_nan=False)
    """Share of the budget that each of the two lists gets before they compete."""

    temperature: float = Field(default=0.01, gt=0.0, allow_inf_nan=False)
    """Temperature of the softmax over visual tokens; lower is more selective. The paper's code has
    0.01; both demo models answer better at 0.1 (docs/methods.md)."""


@dataclass(frozen=True, slots=True)
class Lists:
    """The two lists: that of relevance, then that of saliency."""

    shares: torch.Tensor
    """`[2, images, N]` float64: t and c as shares of their totals; 0 for padding."""

    chosen: torch.Tensor
    """`[2, images, N]` bool: the tokens reserved for a list and those it wins. The two choose K in
    total, counting a token that both choose twice."""


def select(tokens: VisualTokens, keep: int, options: AdaFVOptions) -> torch.Tensor:
    """Return `[images, keep]` indices; see `Method.select`."""
    both = lists(tokens, keep, options)
    # A token that both choose frees a place: fill up with the highest share of either total.
    best = both.shares.amax(dim=0).masked_fill(both.chosen.any(dim=0), math.inf)
    if (ragged := tokens.ragged) is None:
        return top_k_sorted(best, keep)
    return top_k_sorted(best, keep, ragged.valid(best.shape[1]), ragged.keeps)


def lists(tokens: VisualTokens, keep: int, options: AdaFVOptions) -> Lists:
    """Return what relevance and saliency choose; a token may be in both."""
    assert tokens.importance is not None
    assert tokens.projected is not None
    assert tokens.text is not None
    valid, keeps = _sizes(tokens, keep)
    texts = Texts.of(tokens.text, tokens.projected)
    # 1. Without text there is no relevance; saliency in its place makes both lists the same.
    saliency = tokens.importance.float()
    relevance = _relevance(tokens.projected, texts, options.temperature, valid)
    relevance = relevance.where(texts.exist().unsqueeze(1), saliency)
    scores = nonnegative(torch.stack([relevance, saliency]), valid)
    # 2. Each list takes its reserved places and those it wins. Padding, which is at the end and has
    #    0, ranks last: among equals the lower index is first.
    ordered, order = scores.sort(dim=2, descending=True, stable=True)
    reserved = (keeps.double() * options.reserve).floor().long()  # the host's product, to the bit
    free = keeps - 2 * reserved
    won = _best_split(_masses(ordered, reserved, keep), free)
    numbers = reserved + torch.stack([won, free - won])
    first = torch.arange(scores.shape[2], device=scores.device) < numbers.unsqueeze(2)
    return Lists(shares(scores), torch.empty_like(first).scatter_(2, order, first))


def _sizes(tokens: VisualTokens, keep: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which tokens exist, `[images, N]` bool, and the budgets, `[images]` int64."""
    if (ragged := tokens.ragged) is not None:
        return ragged.valid(tokens.features.shape[1]), ragged.keeps
    # A mask here too: see `text_relevance`.
    images, total, _ = tokens.features.shape
    device = tokens.features.device
    valid = torch.ones(images, total, dtype=torch.bool, device=device)
    return valid, torch.full((images,), keep, device=device)


def _relevance(
    projected: torch.Tensor, texts: Texts, temperature: float, valid: torch.Tensor
) -> torch.Tensor:
    """Return t as `[images, N]`."""
    images, total, _ = projected.shape
    flat = text_relevance(
        projected.flatten(0, 1),
        texts.rows.to(projected.dtype),
        torch.arange(images + 1, device=projected.device) * total,
        texts.ends,
        max_visual=total,
        max_text=texts.longest,
        temperature=1.0 / temperature,
        valid=valid.flatten(),
    )
    return flat.view(images, total)


def _masses(ordered: torch.Tensor, reserved: torch.Tensor, most: int) -> torch.Tensor:
    """Return `[2, images, most + 1]` float64: the sums of the k highest scores after the reserved
    ones, for k = 0..most, as multiples of a unit of each row.

    The best split does not depend on the unit, and the scores that are reserved do not set it: one
    word that matches exactly would round all others to 0.

    Args:
        ordered: `[2, images, N]` scores, the highest first.
        reserved: `[images]`, the first places of each list.
        most: a bound of the places after them that the host knows.
    """
    places = reserved.unsqueeze(1) + torch.arange(most, device=reserved.device)
    places = places.clamp_max(max(0, ordered.shape[2] - 1))
    contested = ordered.gather(2, places.expand(2, -1, -1))
    steps = whole(contested, unit_below(contested[:, :, :1]))
    return pad(steps.cumsum(dim=2), (1, 0)).double()


def _best_split(masses: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
    """Return `[images]` int64: how many of the `free` places, `[images]`, go to relevance."""
    won = torch.arange(masses.shape[2], device=free.device)
    lost = (free.unsqueeze(1) - won).clamp_min(0)
    # Past `free` it is 0, which it is for the first split too; of equals argmax takes the first.
    return (masses[0] * masses[1].gather(1, lost)).argmax(dim=1)


ADAFV = Method(
    "adafv",
    select,
    AdaFVOptions,
    frozenset({Need.IMPORTANCE, Need.PROJECTED, Need.TEXT}),
    ragged=True,
)
