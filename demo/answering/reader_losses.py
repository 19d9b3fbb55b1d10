"""The losses of the readers: what a square's token says, and where the decoder looks."""

from __future__ import annotations

import torch
from guidance import attention
from losses import SHARPNESS
from network import Answerer
from qwen_network import QwenAnswerer
from reader import Reader
from reader_batches import PageBatch
from torch.nn import functional as F

OTHERS_MAY = 0.1
"""Cosine with a label's word above which a patch without a code is penalised."""


def code_loss(
    visual: torch.Tensor,
    owner: torch.Tensor,
    digit: torch.Tensor,
    words: torch.Tensor,
    reader: Reader,
) -> torch.Tensor:
    """Cross-entropy over cosines with labels and with digits, for the squares that show a code;
    others are penalised for resembling a label. `visual` [B, K, D]; `owner`, `digit` [B, K]."""
    tokens, unit = F.normalize(visual, dim=-1), F.normalize(words, dim=-1)
    shows = owner > 0
    said = (tokens[~shows] @ unit[reader.labels].T - OTHERS_MAY).relu()
    labels = F.cross_entropy(SHARPNESS * tokens[shows] @ unit[reader.labels].T, owner[shows] - 1)
    digits = F.cross_entropy(SHARPNESS * tokens[shows] @ unit[reader.digits].T, digit[shows])
    return labels + digits + 5 * said.square().sum() / (~shows).sum()


def look_loss(
    model: Answerer | QwenAnswerer,
    states: tuple[torch.Tensor, ...],
    owner: torch.Tensor,
    batch: PageBatch,
    mask: torch.Tensor,
    place: torch.Tensor,
    names: torch.Tensor,
    ends: torch.Tensor,
) -> torch.Tensor:
    """-log of the share of attention that falls where it should: from the letter that a question
    names, in the first layer, on its square; from the question's end, in the second, on the letter.

    Args:
        model: the reader.
        states: the inputs of its decoder's layers.
        owner: of the visual tokens, [B, K].
        batch: the pages.
        mask: which tokens see which.
        place: their positions.
        names: where in the text each question names the letter, [ASKED].
        ends: where in the text each question ends, [ASKED].
    """
    image = slice(model.lead, model.lead + owner.shape[1])
    before = image.stop + model.trail
    seen = attention(model, 0, states[0], before + names, mask, place).mean(1)
    mine = (owner[:, None] == batch.about[:, :, None]).float()
    found = (seen[:, :, image] * mine).sum(-1)
    read = attention(model, 1, states[1], before + ends, mask, place).mean(1)
    named = read[:, torch.arange(len(ends)), before + names]
    return -(found + 1e-4).log().mean() - (named + 1e-4).log().mean()
