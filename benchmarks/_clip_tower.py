"""CLIP-L/14-336 as LLaVA-1.5 runs it, in plain torch with SDPA and random weights."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["HEADS", "PATCHES", "WIDTH", "ClipTower"]

WIDTH, HEADS, PATCHES = 1024, 16, 576

_LAYERS = 23
"""Of 24 layers: the features are the output of the last but one."""


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the output and the layer's query and key, `[images, tokens, WIDTH]` each."""
        query, key, value = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        heads = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (query, key, value))
        attended = nn.functional.scaled_dot_product_attention(*heads)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        hidden = self.up(self.norm2(x))
        return x + self.down(hidden * torch.sigmoid(1.702 * hidden)), query, key


class ClipTower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, kernel_size=14, stride=14, bias=False)
        self.cls = nn.Parameter(torch.randn(WIDTH))
        self.positions = nn.Parameter(torch.randn(1 + PATCHES, WIDTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.layers = nn.ModuleList(_Layer() for _ in range(_LAYERS))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return features, and query and key of the layer that made them, `[images, 1 + PATCHES,
        WIDTH]` each, class token first, for pixels `[images, 3, 336, 336]`."""
        x = self.patches(pixels).flatten(2).mT
        cls = self.cls.expand(len(pixels), 1, WIDTH)
        x = self.norm(torch.cat([cls, x], dim=1) + self.positions)
        for layer in self.layers:
            x, query, key = layer(x)
        return x, query, key
