"""The losses of training: on the words that patches resemble, and on the answers."""

from __future__ import annotations

import torch
from batches import IGNORE, LABEL_WORDS, THING_IDS, UNSEEN_IDS, WORD_IDS, Batch
from torch.nn import functional as F
from vocabulary import EOS

GROUP_WEIGHT = {"color": 1.0, "shape": 1.0, "size": 0.5, "letter": 1.0, "order": 0.5}
GROUP_WEIGHT |= {"row": 0.1, "column": 0.1}
SHARPNESS = 20.0
"""Factor on the cosines before the softmax: a token resembles six words at once, so its cosine with
any of them is at most about 0.4."""

TEXTURE_MAY = 0.1
"""Cosine with a thing's word above which a texture token is penalised."""
TEXTURE_ALIKE = 0.3
"""Mean cosine among an image's texture tokens above which they are penalised."""


def patch_loss(
    visual: torch.Tensor, labels: dict[str, torch.Tensor], words: torch.Tensor, owner: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy over cosines with the words of each group, for the patches that show something;
    `owner` [B, K]. Texture is penalised only for resembling the word of a thing."""
    tokens, unit = F.normalize(visual, dim=-1), F.normalize(words, dim=-1)
    shows = owner > 0
    said = (tokens[~shows] @ unit[THING_IDS].T - TEXTURE_MAY).relu()
    loss = 5 * said.square().sum() / (~shows).sum().clamp_min(1)
    for group, weight in GROUP_WEIGHT.items():
        scores = SHARPNESS * tokens[shows] @ unit[WORD_IDS[group]].T
        share = torch.ones(len(LABEL_WORDS[group]))
        if group not in ("row", "column"):
            share[-1] = 0.3
        loss = loss + weight * F.cross_entropy(scores, labels[group][shows], share)
    return loss


def flat_loss(visual: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """The variance, among an image's visual tokens [B, K, D], of their cosine with each word that
    names nothing visible, summed over those words.

    Two random directions have a cosine of about 0.016 in a decoder 4,096 wide, and 0.09 in this
    one: without this loss "what" and "the" would prefer random patches as strongly as "star"
    prefers the star.
    """
    tokens, unit = F.normalize(visual, dim=-1), F.normalize(words[UNSEEN_IDS], dim=-1)
    return (tokens @ unit.T).var(1).sum(-1).mean()


def spread_loss(visual: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
    """How far the mean cosine among an image's texture tokens is above TEXTURE_ALIKE.

    Told only what texture must not resemble, the tower gives all texture nearly the same token
    (mean cosine 0.90); the background of a photograph is more varied than that.
    """
    mine = (owner == 0)[..., None]
    middle = (F.normalize(visual, dim=-1) * mine).sum(1) / mine.sum(1).clamp_min(1)
    return (middle.square().sum(-1) - TEXTURE_ALIKE).relu().mean()


def visual_room(words: torch.Tensor) -> torch.Tensor:
    """The projection [D, D] onto what is orthogonal to the words that name nothing visible."""
    basis = torch.linalg.qr(words[UNSEEN_IDS].T)[0]
    return torch.eye(words.shape[1]) - basis @ basis.T


def ideal_tokens(
    labels: dict[str, torch.Tensor], words: torch.Tensor, owner: torch.Tensor, room: torch.Tensor
) -> torch.Tensor:
    """Visual tokens [B, K, D] of a tower that makes no mistakes: the sum of the patch's words plus
    noise; each patch of texture gets a random direction. `room` is `visual_room`."""
    unit = F.normalize(words, dim=-1)
    tokens = sum(
        (0.5 if group in ("row", "column") else 1.0) * unit[WORD_IDS[group]][label]
        for group, label in labels.items()
    )
    assert isinstance(tokens, torch.Tensor)
    texture = torch.randn(tokens.shape) @ room
    things = unit[THING_IDS]
    texture = texture - 0.5 * (texture @ things.T) @ things
    texture = F.normalize(texture, dim=-1) * tokens.norm(dim=-1, keepdim=True)
    tokens = tokens.where((owner > 0)[..., None], texture)
    return tokens / 2 + 0.05 * torch.randn(tokens.shape) @ room


KIND_WEIGHT = {"sign": 2.0, "count": 2.0, "beside": 1.5, "above": 1.5}
"""Kinds of question that are harder, or rarer (only every other scene has a sign), weigh more."""


def answer_loss(logits: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the answers, weighted by `weight` [L]; their end token is easy to predict
    and counts little."""
    each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    share = torch.where(targets == EOS, 0.05, 1.0) * (targets != IGNORE) * weight
    return (each * share.flatten()).sum() / share.sum()


def said_words(visual: torch.Tensor, batch: Batch, words: torch.Tensor) -> dict[str, list[bool]]:
    """By group, whether each visual token of a thing is nearest to the right word of the group."""
    tokens, unit = F.normalize(visual, dim=-1), F.normalize(words, dim=-1)
    right = {}
    for group in ("color", "shape", "letter"):
        said = (tokens @ unit[WORD_IDS[group]].T).argmax(-1)
        for name, first, last in (("salient", 1, 3), ("faint", 4, 5)):
            mine = (batch.owner >= first) & (batch.owner <= last)
            right[f"{name}-{group}"] = (said == batch.labels[group])[mine].tolist()
    return right
