"""CDPruner: tokens that differ from each other and are relevant to the question, chosen by a
determinantal point process.

Zhang et al., "Beyond Attention or Similarity: Maximizing Conditional Diversity for Token Pruning in
MLLMs", NeurIPS 2025, https://arxiv.org/abs/2506.10967 (code Apache-2.0, not used here). With cosine
similarities L of the projected tokens v and their relevance r to the question, between 0 and 1:

    kernel  L'_ij = r_i L_ij r_j
    keep, greedily, the set of the highest determinant; by incremental Cholesky, from d2_i = L'_ii:
        take p = arg max d2;  e_i = (L'_pi - sum_k c_kp c_ki) / d_p;  d2_i = d2_i - e_i^2

    r_i = mean_m cos(v_i, e_m), then scaled to 0..1 (plus 1e-6) within the image

The deviation that matters: **relevance is not CLIP's.** The paper compares CLIP's patch and text
embeddings; a LLaVA checkpoint has neither CLIP's text tower nor its projection. Here e_m are the
decoder's input embeddings of the text that follows the image, compared with the projected tokens,
as in AdaFV. CLIP's similarity is lower for patches that show what the text says, so the paper
negates it; a projector is trained towards the words, so here the sign stays.

Other deviations: relevance is scaled within its image, not over a batch of crops, so the result
does not depend on the batch; without text all tokens are equally relevant; a remainder d2 below
1e-6, as a duplicate leaves, counts as 0; ties go to the lower index.
"""

from __future__ import annotations

import math

import torch
from vtprune_kernels import cosine_gram, greedy_select, row_max_cosine

from vllm_pruner.methods.base import Method, Need, Options, VisualTokens
from vllm_pruner.methods.texts import Texts

__all__ = ["CDPRUNER"]

_UNITS, _LEAST = 2.0**22, 1e-6


def select(tokens: VisualTokens, keep: int, options: Options) -> torch.Tensor:
    """Return `[images, keep]` indices; see `Method.select`."""
    assert tokens.projected is not None
    valid = counts = None
    if tokens.ragged is not None:
        valid, counts = tokens.ragged.valid(tokens.projected.shape[1]), tokens.ragged.keeps
    gram = cosine_gram(tokens.projected, valid=valid)
    # Fixed point is off by 1e-7 here, which would decide between equally relevant tokens.
    gram.diagonal(dim1=1, dim2=2).round_()
    return greedy_select(gram, keep, "dpp", _relevance(tokens, valid), valid, counts)


def _relevance(tokens: VisualTokens, valid: torch.Tensor | None) -> torch.Tensor:
    """Return r as `[images, N]` float32; ones without a text. Padding has 0."""
    assert tokens.projected is not None
    # The mean cosine to unit vectors is a multiple of the cosine to their sum; the scaling below
    # cancels the factor.
    direction = _direction(tokens).to(tokens.projected.dtype)
    mean, _ = row_max_cosine(tokens.projected, direction.unsqueeze(1), valid=valid)
    if mean.shape[1] == 0:
        return mean
    if valid is None:
        return _scaled(mean, mean)
    return _scaled(mean, mean.masked_fill(~valid, math.inf)).masked_fill(~valid, 0.0)


def _scaled(mean: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
    """Return `[images, N]` means scaled to 0..1 within their row, plus 1e-6.

    Args:
        mean: the means; minus infinity for padding.
        least: the same, but infinity for padding, so that a row's minimum ignores it.
    """
    lowest, highest = least.amin(dim=1, keepdim=True), mean.amax(dim=1, keepdim=True)
    return (mean - lowest + _LEAST) / (highest - lowest + _LEAST)


def _direction(tokens: VisualTokens) -> torch.Tensor:
    """Return the sum `[images, width]` of each text's unit vectors; zeros without a text.

    Summed as integers, so that neither the batch nor the order of addition changes a bit.
    """
    assert tokens.projected is not None
    assert tokens.text is not None
    texts = Texts.of(tokens.text, tokens.projected)
    rows = texts.rows.double()
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min(2.0**-100)
    units = (rows * (_UNITS / norm).float()).round().nan_to_num(0.0, 0.0, 0.0).long()
    # One more than there are texts, for the rows of none.
    total = torch.zeros(len(texts) + 1, units.shape[1], dtype=torch.int64, device=units.device)
    total.index_add_(0, texts.owners(), units)
    return total[:-1].double() / _UNITS


CDPRUNER = Method("cdpruner", select, needs=frozenset({Need.PROJECTED, Need.TEXT}), ragged=True)
