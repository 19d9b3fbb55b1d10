"""Images of any size in a tower's sequence whose tokens at the right and lower edge have fewer
patches than the others: what is missing of them is zeros, as DeepSeek-V4's projector has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vllm_pruner.methods.base import Need
from vllm_pruner.methods.on_device import on_device
from vllm_pruner.worker.packing import Packing

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["EdgePacking"]


@dataclass(frozen=True)
class EdgePacking(Packing):
    """A `Packing` with tokens at the edge."""

    places: torch.Tensor
    """`[tokens, patches of a token]` int64: each token's patches, rows first; the number of all
    patches where there is none."""

    patches: torch.Tensor
    """`[tokens, 1]` float32: how many patches each token has."""

    @classmethod
    def of_sizes(
        cls, sizes: Sequence[tuple[int, int]], side: int, device: torch.device
    ) -> EdgePacking:
        """Return the packing of images whose patches are in raster order.

        Args:
            sizes: rows and columns of each image's patches.
            side: rows, and columns, of patches in a token.
            device: where its tensors go.
        """
        counts = [rows * columns for rows, columns in sizes]
        starts = accumulate(counts, initial=0)
        each = [_places(size, side, start) for size, start in zip(sizes, starts, strict=False)]
        places = np.concatenate(each)
        there = (places >= 0).sum(axis=1, keepdims=True)
        plain = Packing.of(counts, 1, None, device)
        return cls(
            plain.cu_seqlens,
            plain.longest,
            side * side,
            None,
            on_device(np.where(places < 0, sum(counts), places), device),
            on_device(there, device, torch.float32),
        )

    def by_token(self, patches: torch.Tensor) -> torch.Tensor:
        nothing = patches.new_zeros(1, *patches.shape[1:])
        return torch.cat([patches, nothing])[self.places]

    def read(self, need: Need, layer: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        if need == Need.KEYS:
            return self.by_token(key[0].float().mean(dim=1)).sum(dim=1) / self.patches
        # Of patches one by one, which `sums` then adds up: the operator knows no edge.
        alone = Packing(self.cu_seqlens, self.longest, 1, None)
        return self.sums(alone.read(need, layer, query, key))


def _places(size: tuple[int, int], side: int, start: int) -> NDArray[np.int64]:
    """Return `[tokens, side * side]` of one image whose first patch is the `start`th, -1 where a
    token has none."""
    rows, columns = size
    raster = np.full((-(-rows // side) * side, -(-columns // side) * side), -1)
    raster[:rows, :columns] = start + np.arange(rows * columns).reshape(size)
    blocks = raster.reshape(len(raster) // side, side, -1, side)
    places: NDArray[np.int64] = blocks.transpose(0, 2, 1, 3).reshape(-1, side * side)
    return places
