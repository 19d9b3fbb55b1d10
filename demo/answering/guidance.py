"""Losses on attention: they teach the model to attend where an answer needs it to.

In the first decoder layer the word that names a thing should attend to the thing's visual tokens;
in the second, the last token of the question to that word. In the tower's last layer two heads of a
patch should attend to patches of the same thing, which lets the patch tell the thing's shape. Only
these rows of the attention are computed, from the layers' own queries and keys.
"""

from __future__ import annotations

import torch
from batches import NAMED_AT, Batch
from network import HEADS, WIDTH, Answerer
from qwen_network import QwenAnswerer
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from vocabulary import ASSISTANT
from vtprune_evaluate.scene_questions import PLAN


def named_places(which: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For every name in a sequence's text, its position [S] and the index of its question [S]."""
    begins = [int((which == slot).nonzero()[0]) for slot in range(len(PLAN))]
    pairs = [
        (begins[slot] + word, slot) for slot, kind in enumerate(PLAN) for word in NAMED_AT[kind]
    ]
    return torch.tensor([place for place, _ in pairs]), torch.tensor([slot for _, slot in pairs])


def pooling_loss(model: Answerer, before: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
    """-log of the share of two heads' attention that stays within a thing; `before` [B, 1 + K, D]
    enters the tower's last layer, `owner` [B, K]."""
    layer = model.layers[-1]
    x = layer.layer_norm1(before)
    shape = (*x.shape[:2], HEADS, WIDTH // HEADS)
    query = layer.self_attn.q_proj(x).view(shape)[:, 1:, :2].transpose(1, 2)
    key = layer.self_attn.k_proj(x).view(shape)[:, :, :2].transpose(1, 2)
    seen = (query @ key.transpose(2, 3) * (WIDTH // HEADS) ** -0.5).softmax(-1)[..., 1:]
    same = (owner[:, None] == owner[:, :, None])[:, None]
    within = (seen * same).sum(-1)
    things = (owner > 0)[:, None].expand_as(within)
    return -(within[things] + 1e-4).log().mean()


def attention(
    model: Answerer | QwenAnswerer,
    layer: int,
    hidden: torch.Tensor,
    rows: torch.Tensor,
    mask: torch.Tensor,
    place: torch.Tensor,
) -> torch.Tensor:
    """Attention [B, H, R, L] of the tokens `rows` [R] in a layer whose input is `hidden`
    [B, L, D]."""
    decoder = model.decoder
    block = decoder.layers[layer]
    x = block.input_layernorm(hidden)
    shape = (*x.shape[:2], HEADS, WIDTH // HEADS)
    query = block.self_attn.q_proj(x).view(shape).transpose(1, 2)
    key = block.self_attn.k_proj(x).view(shape).transpose(1, 2)
    query, key = apply_rotary_pos_emb(query, key, *decoder.rotary_emb(x, place))
    scores = query[:, :, rows] @ key.transpose(2, 3) * (WIDTH // HEADS) ** -0.5
    return (scores + mask[:, :, rows]).softmax(-1)


def guidance_loss(
    model: Answerer | QwenAnswerer,
    states: tuple[torch.Tensor, ...],
    owner: torch.Tensor,
    batch: Batch,
    which: torch.Tensor,
    mask: torch.Tensor,
    place: torch.Tensor,
) -> torch.Tensor:
    """-log of the share of attention, averaged over heads, that falls where it should; `owner`
    [B, K] of the visual tokens, `states` the inputs of the layers."""
    image = slice(model.lead, model.lead + owner.shape[1])
    before = image.stop + model.trail
    names, slots = named_places(which)
    seen = attention(model, 0, states[0], before + names, mask, place).mean(1)
    mine = (owner[:, None] == batch.about[:, :, None]) & (batch.about[:, :, None] > 0)
    found = (seen[:, :, image] * mine).sum(-1)
    there = mine.any(-1)
    first = -((found + 1e-4).log() * there).sum() / there.sum()
    ends = (batch.tokens[0] == ASSISTANT).nonzero()[:, 0]
    read = attention(model, 1, states[1], before + ends, mask, place).mean(1)
    named = torch.zeros(len(ends), read.shape[-1]).index_put_(
        (slots, before + names), torch.ones(())
    )
    second = -((read * named).sum(-1) + 1e-4).log().mean()
    return first + second
