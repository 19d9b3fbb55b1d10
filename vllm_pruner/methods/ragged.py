"""Images of unequal length and budget in one call of a method.

They are padded at the end, to the longest one. The operators take `valid` and `counts` for that
(`vtprune_kernels.segments`). Lengths and budgets are on the device, so that a CUDA graph can read
other ones at each replay; the host knows only how far apart the budgets may be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vllm_pruner.methods.on_device import on_device

__all__ = ["Ragged", "first_of_each"]


@dataclass(frozen=True, slots=True)
class Ragged:
    """The length and the budget of each image."""

    lengths: torch.Tensor
    """`[images]` int64: tokens of each image; the rest of its N rows is padding."""

    keeps: torch.Tensor
    """`[images]` int64: tokens to keep of each image."""

    least: int
    """No image keeps fewer, unless it has no tokens. The most that one keeps is the `keep` of
    `Method.select`."""

    @classmethod
    def of(cls, lengths: Sequence[int], keeps: Sequence[int], device: torch.device) -> Ragged:
        """Copy lengths and budgets to a device, without a sync."""
        images, rest = len(lengths), [0] * (len(lengths) % 2)
        # Of an even length, so that both rows begin at a multiple of 16 bytes, as a buffer does:
        # Triton compiles another variant of a kernel for other addresses.
        sizes, budgets = on_device([[*lengths, *rest], [*keeps, *rest]], device)
        return cls(sizes[:images], budgets[:images], min(keeps))

    def valid(self, width: int) -> torch.Tensor:
        """Return `[images, width]` bool, false for padding."""
        return first_of_each(self.lengths, width)


def first_of_each(numbers: torch.Tensor, width: int) -> torch.Tensor:
    """Return `[images, width]` bool, true for the first `numbers[i]` places of row i."""
    return torch.arange(width, device=numbers.device) < numbers.unsqueeze(1)
