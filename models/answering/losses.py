"""What training minimises: the words of patches, and the answers."""

from __future__ import annotations

import torch
from batches import IGNORE, LABEL_WORDS, WORD_IDS, Batch
from torch.nn import functional as F
from vocabulary import EOS

GROUP_WEIGHT = {"color": 1.0, "shape": 1.0, "size": 0.5, "letter": 1.0, "order": 0.5}
GROUP_WEIGHT |= {"row": 0.1, "column": 0.1}
SHARPNESS = 20.0
"""Of the cosines: a token resembles six words at once, so none by more than about 0.4."""


def patch_loss(
    visual: torch.Tensor, labels: dict[str, torch.Tensor], words: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy over cosines with the words of each group; texture counts a third."""
    tokens, unit = F.normalize(visual, dim=-1), F.normalize(words, dim=-1)
    loss = visual.new_zeros(())
    for group, weight in GROUP_WEIGHT.items():
        scores = SHARPNESS * tokens @ unit[WORD_IDS[group]].T
        share = torch.ones(len(LABEL_WORDS[group]))
        if group not in ("row", "column"):
            share[-1] = 0.3
        loss = loss + weight * F.cross_entropy(scores.flatten(0, 1), labels[group].flatten(), share)
    return loss


def ideal_tokens(labels: dict[str, torch.Tensor], words: torch.Tensor) -> torch.Tensor:
    """Visual tokens [B, K, D] of a tower without mistakes: the sum of their words, and noise."""
    unit = F.normalize(words, dim=-1)
    tokens = sum(
        (0.5 if group in ("row", "column") else 1.0) * unit[WORD_IDS[group]][label]
        for group, label in labels.items()
    )
    assert isinstance(tokens, torch.Tensor)
    return tokens / 2 + 0.05 * torch.randn(tokens.shape)


def answer_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the answers; where they end is easy and counts little."""
    each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    share = torch.where(targets == EOS, 0.05, 1.0) * (targets != IGNORE)
    return (each * share.flatten()).sum() / share.sum()


def said_words(visual: torch.Tensor, batch: Batch, words: torch.Tensor) -> dict[str, list[bool]]:
    """Whether each visual token of a thing says the right word of a group by itself."""
    tokens, unit = F.normalize(visual, dim=-1), F.normalize(words, dim=-1)
    right = {}
    for group in ("color", "shape", "letter"):
        said = (tokens @ unit[WORD_IDS[group]].T).argmax(-1)
        for name, first, last in (("salient", 1, 3), ("faint", 4, 5)):
            mine = (batch.owner >= first) & (batch.owner <= last)
            right[f"{name}-{group}"] = (said == batch.labels[group])[mine].tolist()
    return right
