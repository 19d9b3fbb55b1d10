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
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from pydantic import Field
from vtprune_kernels import text_relevance, top_k_sorted

from vllm_pruner.methods.base import Method, Need, Options, VisualTokens
from vllm_pruner.methods.on_device import on_device
from vllm_pruner.methods.scores import shares

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
    """`[images, N]` float64: t or c as a share of its total."""

    chosen: torch.Tensor
    """`[images, N]` bool: the tokens reserved for the list and those it wins. The two lists choose
    K in total, counting a token that both choose twice."""


def select(tokens: VisualTokens, keep: int, options: AdaFVOptions) -> torch.Tensor:
    """Return `[images, keep]` indices; see `Method.select`."""
    relevant, salient = lists(tokens, keep, options)
    # A token that both choose frees a place: fill up with the highest share of either total.
    best = torch.maximum(relevant.shares, salient.shares)
    return top_k_sorted(best.masked_fill(relevant.chosen | salient.chosen, math.inf), keep)


def lists(tokens: VisualTokens, keep: int, options: AdaFVOptions) -> tuple[Listed, Listed]:
    """Return what relevance and saliency choose; a token may be in both."""
    assert tokens.importance is not None
    assert tokens.text is not None
    saliency = shares(tokens.importance.double())
    relevance = shares(_relevance(tokens, options.temperature).double())
    # 1. Without text there is no relevance; saliency in its place makes both lists the same.
    if any(len(text) == 0 for text in tokens.text):
        spoken = [[len(text) > 0] for text in tokens.text]
        relevance = relevance.where(on_device(spoken, saliency.device, torch.bool), saliency)
    # 2. Each list takes its reserved places and those it wins.
    reserved = math.floor(options.reserve * keep)
    won = _best_split(relevance, saliency, reserved, keep - 2 * reserved)
    return (
        Listed(relevance, _rank(relevance) < reserved + won),
        Listed(saliency, _rank(saliency) < keep - reserved - won),
    )


def _relevance(tokens: VisualTokens, temperature: float) -> torch.Tensor:
    """Return t as `[images, N]`."""
    assert tokens.projected is not None
    assert tokens.text is not None
    images, total, _ = tokens.projected.shape
    device = tokens.projected.device
    ends = [0]
    for text in tokens.text:
        ends.append(ends[-1] + len(text))
    flat = text_relevance(
        tokens.projected.flatten(0, 1),
        torch.cat([tokens.projected.flatten(0, 1)[:0], *tokens.text]).to(tokens.projected.dtype),
        torch.arange(images + 1, device=device) * total,
        on_device(ends, device),
        max_visual=total,
        max_text=max((len(text) for text in tokens.text), default=0),
        temperature=1.0 / temperature,
    )
    return flat.view(images, total)


def _rank(scores: torch.Tensor) -> torch.Tensor:
    """Return each token's rank in its row, 0 for the highest score; ties go to the lower index."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    place = torch.arange(scores.shape[1], device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, place)


def _best_split(
    relevance: torch.Tensor, saliency: torch.Tensor, reserved: int, free: int
) -> torch.Tensor:
    """Return `[images, 1]`: how many of the free places go to relevance."""

    def mass(scores: torch.Tensor) -> torch.Tensor:
        """Sum of the k highest scores after the reserved ones, for k = 0..free."""
        ordered = scores.sort(dim=1, descending=True).values[:, reserved : reserved + free]
        return torch.nn.functional.pad(ordered.cumsum(dim=1), (1, 0))

    return (mass(relevance) * mass(saliency).flip(1)).argmax(dim=1, keepdim=True)


ADAFV = Method(
    "adafv", select, AdaFVOptions, frozenset({Need.IMPORTANCE, Need.PROJECTED, Need.TEXT})
)
