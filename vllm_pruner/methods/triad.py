"""Triad, our own: tokens that cover what the encoder attends to, what the question asks for, and
the rest of the image.

No paper. Every token j of the image has a demand w_j to be covered, and the kept set S greedily
covers as much of it as possible:

    maximise   sum_j w_j * max over i in S of max(0, cos(v_i, v_j))            v: projected tokens
    w_j        = (a_j / sum a  +  r_j / sum r  +  1 / N) / 3

a is the encoder's attention to a token, r its relevance to the question. The objective is monotone
and submodular, so the greedy set has at least 1 - 1/e of the best possible value. SCOPE weights the
tokens that *cover*, and so picks salient ones; here the weight is on the tokens *to be covered*.
One kept token can cover a whole region, and what is covered adds no further gain, so salient or
relevant duplicates are not kept. The uniform third covers the rest of the picture.

Relevance must not weight every word alike: "what", "the" and "?" match best somewhere, too. For
word m with cosines c_mj to all tokens and deviations d_mj = c_mj - mean_j c_mj:

    skew_m = max(0, mean_j d_mj^3) / (mean_j d_mj^2)^1.5
    r_j    = sum_m skew_m * max(0, d_mj)^2 / sum_i max(0, d_mi)^2

A word that names something in the picture is close to a few tokens and far from the others: its
cosines are skewed to the right. Those of a word without content are symmetric about their mean, and
a word that matches everything has no deviations; neither counts. No temperature is needed: skewness
and shares do not change if all cosines are scaled or shifted.

Without a text the other two thirds remain. How the method was found, what else was tried and how it
scored: `benchmarks/results/own-method.md`.

All sums that decide are integer sums (cosines of `cosine_gram`; deviations in multiples of 2**-16;
totals of `methods.scores`), so that an image keeps the same tokens in any batch, beside longer ones
too. Ties go to the lower index; NaN and negative attention count as 0.
"""

from __future__ import annotations

import torch
from vtprune_kernels import cosine_gram, greedy_select

from vllm_pruner.methods.base import Method, Need, Options, VisualTokens
from vllm_pruner.methods.scores import nonnegative, shares, whole
from vllm_pruner.methods.texts import Texts

__all__ = ["TRIAD"]

_COSINE, _DEVIATION, _CLAIM = 2.0**-22, 2.0**-16, 2.0**-32
"""Units: of `cosine_gram`, of a deviation (the cubes of 16,384 tokens add up to less than 2**63 of
them), and of a word's demand."""


def select(tokens: VisualTokens, keep: int, options: Options) -> torch.Tensor:
    """Return `[images, keep]` indices; see `Method.select`."""
    assert tokens.importance is not None
    assert tokens.projected is not None
    assert tokens.text is not None
    images, total, _ = tokens.projected.shape
    ragged, device = tokens.ragged, tokens.projected.device
    # 1. Cosines of tokens with each other and with the words; words of zeros pad the text.
    words, spoken = Texts.of(tokens.text, tokens.projected).padded()
    both = torch.cat([tokens.projected, words.to(tokens.projected.dtype)], dim=1)
    if ragged is None:
        lengths = torch.full((images,), total, device=device)
        valid = counts = exist = None
    else:
        lengths, counts, valid = ragged.lengths, ragged.keeps, ragged.valid(total)
        exist = torch.cat([valid, spoken], dim=1)
    cosine = cosine_gram(both, valid=exist)
    # 2. Each token's demand to be covered.
    saliency = nonnegative(tokens.importance, valid).double()
    relevance = _relevance(cosine[:, total:, :total], lengths, valid)
    claims = shares(torch.stack([saliency, relevance])).sum(dim=0)
    claims = claims + 1 / lengths.clamp_min(1).double().unsqueeze(1)
    # 3. Cover it.
    gram = cosine[:, :total, :total]
    return greedy_select(gram, keep, "demand", (claims / 3).float(), valid, counts)


def _relevance(
    cosine: torch.Tensor, lengths: torch.Tensor, valid: torch.Tensor | None
) -> torch.Tensor:
    """Return r `[images, N]`, integers in float64; 0 for padding.

    Args:
        cosine: `[images, words, N]`, of each word with each token; 0 for padding.
        lengths: `[images]`, tokens of each image.
        valid: `[images, N]` bool, false for padding; None if there is none.
    """
    count = lengths.clamp_min(1).double()[:, None, None]
    mean = whole(cosine.double(), _COSINE).sum(dim=2, keepdim=True).double() * _COSINE / count
    deviation = whole(cosine.double() - mean, _DEVIATION)
    if valid is not None:
        deviation = deviation.where(valid.unsqueeze(1), 0)
    # 1. The skewness of each word's cosines.
    second = ((deviation**2).sum(dim=2, keepdim=True).double() / count).clamp_min(1.0)
    third = (deviation**3).sum(dim=2, keepdim=True).double() / count
    # A power of 1.5 as a root, which every device rounds alike.
    skew = third.clamp_min(0.0) / (second * second.sqrt())
    # 2. Which tokens are above the word's mean.
    above = deviation.clamp_min(0) ** 2
    parts = above.double() / above.sum(dim=2, keepdim=True).double().clamp_min(1.0)
    return whole(skew * parts, _CLAIM).sum(dim=1).double()


TRIAD = Method(
    "triad", select, needs=frozenset({Need.IMPORTANCE, Need.PROJECTED, Need.TEXT}), ragged=True
)
