"""Images of any size packed into a vision tower's sequence, and reading attention from it.

Several patches form a token: its received attention is the sum over its patches, its key their
mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from vtprune_kernels import column_importance

from vllm_pruner.methods.base import Need
from vllm_pruner.methods.on_device import on_device

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Packing"]


@dataclass(frozen=True)
class Packing:
    """How the images of a call are packed into the tower's sequence."""

    cu_seqlens: torch.Tensor
    """`[images + 1]` int32: where each image starts and ends, in patches."""

    longest: int
    """Patches of the largest image."""

    patches_per_token: int

    token_of_patch: torch.Tensor | None
    """`[patches]` int64: the token of each patch; None if each token's patches are consecutive."""

    @classmethod
    def of(
        cls,
        sizes: Sequence[int],
        patches_per_token: int,
        token_of_patch: torch.Tensor | None,
        device: torch.device,
    ) -> Packing:
        """Return the packing of images of `sizes` patches; see the fields."""
        ends = on_device([0, *accumulate(sizes)], device, torch.int32)
        return cls(ends, max(sizes), patches_per_token, token_of_patch)

    @classmethod
    def of_rasters(
        cls, grids: Sequence[tuple[int, int]], merge: tuple[int, int], device: torch.device
    ) -> Packing:
        """Return the packing of images whose patches are in raster order. The host computes it:
        one copy costs it less than several launches for each image.

        Args:
            grids: rows and columns of each image's tokens.
            merge: rows and columns of a token's patches.
            device: where its tensors go.
        """
        counts, group = [rows * columns for rows, columns in grids], prod(merge)
        sizes = [count * group for count in counts]
        if group == 1:
            return cls.of(sizes, group, None, device)
        starts = accumulate(counts, initial=0)
        tokens = [
            start + _token_of_patch(grid, merge) for start, grid in zip(starts, grids, strict=False)
        ]
        return cls.of(sizes, group, on_device(np.concatenate(tokens), device), device)

    @cached_property
    def _by_token(self) -> torch.Tensor | None:
        """`[patches]` int64, the patches of one token after the other; None if they are so."""
        tokens = self.token_of_patch
        return None if tokens is None else tokens.argsort(stable=True)

    def by_token(self, patches: torch.Tensor) -> torch.Tensor:
        """Group `[patches, ...]` by token: `[tokens, patches of a token, ...]`, tokens in raster
        order, the patches of each in the tower's order."""
        if self._by_token is not None:
            patches = patches[self._by_token]
        tokens: torch.Tensor = patches.unflatten(0, (-1, self.patches_per_token))
        return tokens

    def sums(self, scores: torch.Tensor) -> torch.Tensor:
        """Add up the scores of a token's patches: `[tokens]` in raster order, given those of all
        patches in the tower's order."""
        return self.by_token(scores.flatten()).sum(dim=1)

    def read(self, need: Need, layer: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """Return the column of `need` over this rank's heads, `[tokens, ...]` in raster order.

        Args:
            need: what to compute.
            layer: the attention module, with `num_heads` and `scale`.
            query: `[1, patches, heads, head size]`.
            key: of the same shape, or with fewer heads, each for a group of the query's.
        """
        if need == Need.KEYS:
            return self.by_token(key[0].float().mean(dim=1)).mean(dim=1)
        if (group := query.shape[2] // key.shape[2]) > 1:
            key = key.repeat_interleave(group, dim=2)
        scores: torch.Tensor = column_importance(
            query[0].flatten(1),
            key[0].flatten(1),
            layer.num_heads,
            layer.scale,
            self.cu_seqlens,
            self.longest,
            token_of_patch=self.token_of_patch,
            patches_per_token=self.patches_per_token,
        )
        return scores


def _token_of_patch(grid: tuple[int, int], merge: tuple[int, int]) -> NDArray[np.int64]:
    """Return `[patches]` of one image, in raster order."""
    rows, columns = (np.arange(grid[axis]).repeat(merge[axis]) for axis in range(2))
    tokens: NDArray[np.int64] = np.add.outer(rows * grid[1], columns).ravel()
    return tokens
