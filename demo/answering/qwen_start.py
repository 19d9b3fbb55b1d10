"""Starting weights of the demo Qwen's tower; `start.py` has those of CLIP's tower.

A patch embedding begins as the patch's low cosine frequencies. Positions are rotary here, so the
biases of queries and keys are enough to make a head attend to the patch beside, above or below: two
equal vectors score highest at distance 0, and rotating the key's moves that maximum by one patch.
"""

from __future__ import annotations

import torch
from network import HEADS, WIDTH
from qwen_network import QwenAnswerer
from start import HEAD, LOOK, patch_kernel

STRENGTH = 3.0
"""Length of the bias in each plane of rotation: a head's attention to its neighbour begins near one
half."""


def _planes() -> torch.Tensor:
    """Radians per patch [HEAD / 2] of the tower's rotary planes: those of rows, then of columns."""
    slow = 10_000.0 ** -(torch.arange(0, HEAD // 2, 2) / (HEAD // 2))
    return torch.cat([slow, slow])


@torch.no_grad()
def start_qwen_tower(model: QwenAnswerer, patches: torch.Tensor) -> None:
    """Set the tower's weights; the normalised `patches` [M, 588] are samples, by which the patch
    embedding is scaled to an rms of 1."""
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
