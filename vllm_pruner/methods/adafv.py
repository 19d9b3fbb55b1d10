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
from vtprune_kernels import text_relevance, top_k_sorted

from vllm_pruner.methods.base import Method, Need, Options, VisualTokens
from vllm_pruner.methods.ragged import first_of_each
from vllm_pruner.methods.scores import nonnegative, shares, unit_below, whole
from vllm_pruner.methods.texts import Texts

__all__ = ["ADAFV", "AdaFVOptions", "Listed", "lists"]


class AdaFVOptions(Options):
    """Options of `adafv`."""

    reserve: float = Field(default=0.25, ge=0.0, le=0.5, allow_inf_nan=False)
    """Share of the budget that each of the two lists gets before they compete."""

    temperature: float = Field(default=0.01, gt=0.0, allow_inf_nan=False)
    """Temperature of the softmax over visual tokens; lower is more selective. The paper's code has
    0.01; both demo models answer better at 0.1 (docs/methods.md)."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One of the two lists."""

    shares: torch.Tensor
    """`[images, N]` float64: t or c as a share of its total; 0 for padding."""

    chosen: torch.Tensor
    """`[images, N]` bool: the tokens reserved for the list and those it wins. The two lists choose
    K in total, counting a token that both choose twice."""


def select(tokens: VisualTokens, keep: int, options: AdaFVOptions) -> torch.Tensor:
    """Return `[images, keep]` indices; see `Method.select`."""
    relevant, salient = lists(tokens, keep, options)
    # A token that both choose frees a place: fill up with the highest share of either total.
    best = torch.maximum(relevant.shares, salient.shares)
    best = best.masked_fill(relevant.chosen | salient.chosen, math.inf)
    if (ragged := tokens.ragged) is None:
        return top_k_sorted(best, keep)
    return top_k_sorted(best, keep, ragged.valid(best.shape[1]), ragged.keeps)


def lists(tokens: VisualTokens, keep: int, options: AdaFVOptions) -> tuple[Listed, Listed]:
    """Return what relevance and saliency choose; a token may be in both."""
    assert tokens.importance is not None
    assert tokens.projected is not None
    assert tokens.text is not None
    valid, keeps = _sizes(tokens, keep)
    texts = Texts.of(tokens.text, tokens.projected)
    saliency = nonnegative(tokens.importance, valid)
    relevance = nonnegative(_relevance(tokens.projected, texts, options.temperature, valid), valid)
    # 1. Without text there is no relevance; saliency in its place makes both lists the same.
    relevance = relevance.where(texts.exist().unsqueeze(1), saliency)
    # 2. Each list takes its reserved places and those it wins. Padding, which is at the end and has
    #    0, ranks last: among equals the lower index is first.
    by_relevance, by_saliency = (
        scores.sort(dim=1, descending=True, stable=True) for scores in (relevance, saliency)
    )
    reserved = (keeps.double() * options.reserve).floor().long()  # the host's product, to the bit
    won = _best_split(by_relevance.values, by_saliency.values, reserved, keeps - 2 * reserved, keep)
    return (
        Listed(shares(relevance), _first(by_relevance.indices, reserved + won)),
        Listed(shares(saliency), _first(by_saliency.indices, keeps - reserved - won)),
    )


def _sizes(tokens: VisualTokens, keep: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which tokens exist, `[images, N]` bool, and the budgets, `[images]` int64."""
    if (ragged := tokens.ragged) is not None:
        return ragged.valid(tokens.features.shape[1]), ragged.keeps
    # Without a mask the kernel would be another program, which may round otherwise.
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


def _first(order: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Return `[images, N]` bool, the tokens among the first `numbers[i]` of an order."""
    chosen = first_of_each(numbers, order.shape[1])
    return torch.empty_like(chosen).scatter_(1, order, chosen)


def _best_split(
    relevance: torch.Tensor,
    saliency: torch.Tensor,
    reserved: torch.Tensor,
    free: torch.Tensor,
    most: int,
) -> torch.Tensor:
    """Return `[images]` int64: how many of the free places go to relevance.

    Args:
        relevance: `[images, N]` scores, the highest first.
        saliency: the same of the other list.
        reserved: `[images]`, the first places of each list.
        free: `[images]`, the places that they compete for, `most` or fewer.
        most: a bound that the host knows.
    """
    won = torch.arange(most + 1, device=free.device)
    lost = (free.unsqueeze(1) - won).clamp_min(0)
    product = _masses(relevance, reserved, most) * _masses(saliency, reserved, most).gather(1, lost)
    # Past `free` it is 0, which it is for the first split too; of equals argmax takes the first.
    return product.argmax(dim=1)


def _masses(ordered: torch.Tensor, reserved: torch.Tensor, most: int) -> torch.Tensor:
    """Return `[images, most + 1]` float64: the sum of the k highest scores after the reserved ones,
    for k = 0..most, as a multiple of their own unit.

    The best split does not depend on the unit, and the scores that are reserved do not set it: one
    word that matches exactly would round all others to 0.
    """
    places = reserved.unsqueeze(1) + torch.arange(most, device=reserved.device)
    contested = ordered.gather(1, places.clamp_max(max(0, ordered.shape[1] - 1)))
    steps = whole(contested, unit_below(contested[:, :1]))
    return torch.nn.functional.pad(steps.cumsum(dim=1), (1, 0)).double()


ADAFV = Method(
    "adafv",
    select,
    AdaFVOptions,
    frozenset({Need.IMPORTANCE, Need.PROJECTED, Need.TEXT}),
    ragged=True,
)
