"""Images of unequal length and budget in one call of a method.

They are padded at the end, to the longest one. The operators take `valid` and `counts` for that
(`vtprune_kernels.segments`); both are made here from numbers on the host, without a device sync.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vllm_pruner.methods.on_device import on_device

__all__ = ["Ragged", "first_of_each"]


@dataclass(frozen=True, slots=True)
class Ragged:
    """The length and the budget of each image."""

    lengths: tuple[int, ...]
    """Tokens of each image; the rest of its N rows is padding."""

    keeps: tuple[int, ...]
    """Tokens to keep of each image."""

    def valid(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return `[images, N]` bool, false for padding, on the device of `tokens` `[images, N,
        ...]`."""
        return first_of_each(self.lengths, tokens.shape[1], tokens.device)

    def counts(self, device: torch.device) -> torch.Tensor:
        """Return the budgets, `[images]` int64."""
        return on_device(self.keeps, device)


def first_of_each(numbers: tuple[int, ...], width: int, device: torch.device) -> torch.Tensor:
    """Return `[images, width]` bool, true for the first `numbers[i]` places of row i."""
    ends = on_device(numbers, device).unsqueeze(1)
    return torch.arange(width, device=device) < ends
