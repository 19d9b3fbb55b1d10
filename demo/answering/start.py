"""Starting weights that spare the tiny model most of its plateau.

From a usual initialisation such a model answers at chance for hundreds of steps, until its
attention finds neighbours in the tower and the word that is asked for among the visual tokens. The
starting weights give it both:

- tower: a patch embedding begins as the patch's low cosine frequencies, a position embedding as
  sines and cosines of its row and column, and the heads of the first two layers attend to the patch
  beside, above or below;
- decoder: queries and keys begin equal in the slowly rotating dimensions, so a word attends to
  tokens that resemble it, and values and outputs begin as each other's transpose, so it copies them
  (after "Mimetic Initialization of Self-Attention Layers", Trockman and Kolter, ICML 2023).
"""

from __future__ import annotations

import math

import torch
from batches import GRID, PATCH
from network import HEADS, WIDTH, Answerer
from qwen_network import QwenAnswerer

HEAD = WIDTH // HEADS
LOOK = [(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)]
"""Where the four heads of a tower layer attend: columns to the right, rows down."""


def _cosines(count: int) -> torch.Tensor:
    """The lowest `count`² two-dimensional cosine waves [count², PATCH, PATCH], each with rms 1."""
    at = (torch.arange(PATCH) + 0.5) * math.pi / PATCH
    waves = torch.stack([torch.cos(k * at) * (1 if k == 0 else 2**0.5) for k in range(count)])
    return torch.einsum("iy,jx->ijyx", waves, waves).flatten(0, 1)


def patch_kernel() -> torch.Tensor:
    """The kernel [WIDTH, 3, PATCH, PATCH] of the patch embedding: 64 waves of brightness and 16 of
    each of two colour differences; the last 32 rows are 0."""
    kernel = torch.zeros(WIDTH, 3, PATCH, PATCH)
    gain = torch.full((8, 8), 5.0)
    gain[:3, :3], gain[0, 0] = 3.0, 1.0
    kernel[:64] = (_cosines(8) * gain.flatten()[:, None, None])[:, None] / 3
    color = torch.tensor([[1.0, -1.0, 0.0], [-0.5, -0.5, 1.0]])
    for i, difference in enumerate(color):
        kernel[64 + 16 * i : 80 + 16 * i] = 2 * _cosines(4)[:, None] * difference[:, None, None]
    return 2.5 * kernel / PATCH**2


def _frequencies() -> torch.Tensor:
    return torch.arange(1, 9) * math.pi / GRID


def _places() -> torch.Tensor:
    """[GRID², 32]: sines and cosines of the column, then of the row."""
    y, x = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
    waves = [
        function(axis.reshape(-1, 1) * _frequencies())
        for axis in (x, y)
        for function in (torch.sin, torch.cos)
    ]
    return torch.cat(waves, 1)


def _shifted(by: float) -> torch.Tensor:
    """The 16 x 16 matrix that maps a position's waves to those of the position `by` further."""
    turn = _frequencies() * by
    cos, sin = torch.diag(torch.cos(turn)), torch.diag(torch.sin(turn))
    return torch.cat([torch.cat([cos, sin], 1), torch.cat([-sin, cos], 1)], 0)


@torch.no_grad()
def start_tower(model: Answerer) -> None:
    model.embeddings.patch_embedding.weight.copy_(patch_kernel())
    table = model.embeddings.position_embedding.weight
    table.normal_(std=0.02)
    table[1:, 96:] = 0.8 * _places()
    for layer in model.layers[:2]:
        for head, (right, down) in enumerate(LOOK):
            rows = slice(HEAD * head, HEAD * (head + 1))
            layer.self_attn.k_proj.weight[rows, 96:] += 1.2 * torch.eye(HEAD)
            look = torch.block_diag(_shifted(right), _shifted(down))
            layer.self_attn.q_proj.weight[rows, 96:] += 1.2 * look


@torch.no_grad()
def start_decoder(model: Answerer | QwenAnswerer) -> None:
    slow = torch.arange(HEAD) % (HEAD // 2) >= 7
    gain = torch.where(slow, 1.8, 0.3).repeat(HEADS)[:, None]
    for layer in model.decoder.layers:
        attention = layer.self_attn
        match = torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0]
        copy = torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0]
        attention.q_proj.weight.copy_(gain * match + 0.02 * torch.randn(WIDTH, WIDTH))
        attention.k_proj.weight.copy_(gain * match + 0.02 * torch.randn(WIDTH, WIDTH))
        attention.v_proj.weight.copy_(copy)
        attention.o_proj.weight.copy_(0.15 * copy.T)
