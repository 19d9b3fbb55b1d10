"""What pruning methods rely on: where the class token attends, and what visual tokens resemble."""

from __future__ import annotations

import torch
from batches import UNSEEN_IDS
from network import HEADS, WIDTH, Answerer
from torch.nn import functional as F

OWNERS = {"texture": (0, 0), "salient": (1, 3), "faint": (4, 5), "copies": (6, 6), "tiles": (7, 7)}
OWNERS |= {"sign": (8, 8)}


def class_attention(model: Answerer, before: torch.Tensor) -> torch.Tensor:
    """The class token's attention [B, K] to the patches, averaged over heads, in the last layer
    that runs; `before` [B, 1 + K, D] enters it."""
    layer = model.layers[-1]
    x = layer.layer_norm1(before)
    query = layer.self_attn.q_proj(x[:, :1]).unflatten(-1, (HEADS, -1)).transpose(1, 2)
    key = layer.self_attn.k_proj(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
    seen = (query @ key.transpose(2, 3) * (WIDTH // HEADS) ** -0.5).softmax(-1)
    return seen[:, :, 0, 1:].mean(1)


def mechanism(
    model: Answerer, visual: torch.Tensor, before: torch.Tensor, owner: torch.Tensor
) -> dict[str, list[float]]:
    """Per image: the share of the class token's attention on each kind of owner, the mean cosine
    among texture tokens, and the standard deviation of the cosines with words that name nothing
    visible. `owner` [B, K]."""
    found: dict[str, list[float]] = {}
    seen = class_attention(model, before)
    seen = seen / seen.sum(1, keepdim=True)
    for name, (first, last) in OWNERS.items():
        mine = (owner >= first) & (owner <= last)
        share = (seen * mine).sum(1)[mine.any(1)]
        found[f"cls-{name}"] = share.tolist()
    tokens, unit = F.normalize(visual, dim=-1), F.normalize(model.words, dim=-1)
    texture = [tokens[i][owner[i] == 0] for i in range(len(tokens))]
    found["cos-texture"] = [float((t @ t.T).mean()) for t in texture]
    found["unseen-words"] = (tokens @ unit[UNSEEN_IDS].T).std(1).mean(1).tolist()
    return found
