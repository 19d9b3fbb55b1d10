"""Starting weights of the demo Qwen's tower, as `start.py` has them for CLIP's.

A patch begins as its low cosine frequencies. Places are turned angles here, so the biases of
queries and keys alone make a head look beside, above or below: equal vectors score highest where
nothing is turned between them, and the key's is turned by the distance.
"""

from __future__ import annotations

import torch
from network import HEADS, WIDTH
from qwen_network import QwenAnswerer
from start import HEAD, LOOK, patch_kernel

STRENGTH = 3.0
"""Of a bias in each plane of rotation: a head's attention to its neighbour begins near one half."""


def _planes() -> torch.Tensor:
    """Radians a patch: of rows, then of columns, as Qwen2.5-VL's tower turns them [HEAD / 2]."""
    slow = 10_000.0 ** -(torch.arange(0, HEAD // 2, 2) / (HEAD // 2))
    return torch.cat([slow, slow])


@torch.no_grad()
def start_qwen_tower(model: QwenAnswerer, patches: torch.Tensor) -> None:
    """Start the tower; `patches` [M, 588], normalised, give the scale at which they enter it."""
    tower = model.tower
    kernel = patch_kernel()
    kernel = kernel / (patches @ kernel.flatten(1).T).square().mean().sqrt()
    tower.patch_embed.proj.weight.copy_(kernel[:, :, None].expand(-1, -1, 2, -1, -1) / 2)
    rows = torch.arange(HEAD // 2) < HEAD // 4
    for block in tower.blocks[:2]:
        bias = block.attn.qkv.bias.view(3, HEADS, HEAD)
        for head, (right, down) in enumerate(LOOK):
            angle = -_planes() * torch.where(rows, down, right)
            bias[0, head, : HEAD // 2] = STRENGTH
            bias[1, head, : HEAD // 2] = STRENGTH * angle.cos()
            bias[1, head, HEAD // 2 :] = STRENGTH * angle.sin()
    for block in tower.blocks:
        value = torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0]
        block.attn.qkv.weight[2 * WIDTH :].copy_(value)
        block.attn.proj.weight.copy_(0.3 * torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0])
        for layer in (block.mlp.gate_proj, block.mlp.up_proj, block.mlp.down_proj):
            torch.nn.init.xavier_normal_(layer.weight)
    for i in (0, 2):
        torch.nn.init.xavier_normal_(tower.merger.mlp[i].weight)
