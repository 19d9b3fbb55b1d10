"""Towers that take images of any resolution, packed into one sequence, in raster order, and leave
it to the projector to make one token of several patches: Pixtral's, MoonViT, SigLIP2 and RADIO.

Patches attend within their image, or their crop of one. Attention and keys are read in the tower
and folded into tokens (`packing`); methods compare the normalised features of a token's patches,
and only kept tokens are projected: `encode` and `project` split what the model's projector does in
one pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from vllm_pruner import compat
from vllm_pruner.methods.base import Need
from vllm_pruner.tower import FEATURES, Columns
from vllm_pruner.worker.columns import columns_of, device_of
from vllm_pruner.worker.packed_tower import PAGE
from vllm_pruner.worker.packing import Packing
from vllm_pruner.worker.probe import AttentionProbe, MergerInput, layers_by_need

if TYPE_CHECKING:
    from vllm_pruner.tower import EncoderImage

__all__ = ["Grids", "MergedTower"]

Grids = list[tuple[int, int]]
"""Rows and columns of tokens of each image, or of each crop."""


class MergedTower(ABC):
    """Everything but the forward pass; see `Tower`."""

    own_width: int | None = None

    _packing: Packing
    """How the pictures of the call are packed that is running."""

    layers: ClassVar[str]
    """Path of the list of layers in the tower."""

    attention: ClassVar[str]
    """Path of the attention in a layer."""

    norm: ClassVar[str]
    """Path of the norm that ends the tower; empty if it has none."""

    heads: ClassVar[str] = "num_attention_heads"
    """Name in the tower's configuration of the number of heads of a layer."""

    norm_returns: ClassVar[bool] = False
    """Whether that path is of a module that returns what a norm would get."""

    def __init__(self, tower: Any, projector: Any, config: Any, merge: tuple[int, int]) -> None:
        """Find the layers.

        Args:
            tower: vLLM's module.
            projector: what makes the decoder's rows of its output.
            config: the tower's, with `hidden_size` and the number of `heads`.
            merge: rows and columns of patches in a token.

        Raises:
            RuntimeError: the tower lacks a module that `compat.tower` relies on.
        """
        self.module, self._projector = tower, projector
        self.page, self._config, self._merge = PAGE, config, merge
        self.patches_per_row = merge[0] * merge[1]
        found = layers_by_need(self._attention, len(self.module.get_submodule(self.layers)))
        self._head_size: int = found[Need.KEYS].head_size
        last = compat.last_norm(self.module, self.norm)
        is_returned = self.norm_returns or last is self.module
        merger = MergerInput(last, is_returned, self._fold)
        self._probe = AttentionProbe(found, getattr(config, self.heads), self._read, merger)

    def _attention(self, layer: int) -> Any:
        return compat.tower_attention(self.module, self.layers, layer, self.attention)

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        hidden, _ = self._projector.linear_1(rows)
        projected: torch.Tensor = self._projector.linear_2(self._projector.act(hidden))[0]
        return projected

    def columns(self, needs: frozenset[Need]) -> dict[str, tuple[int, torch.dtype]]:
        width = self._config.hidden_size * self.patches_per_row
        return columns_of(self.module, width, self._head_size, needs)

    @torch.no_grad()
    def encode(self, images: Sequence[EncoderImage], needs: frozenset[Need]) -> Columns:
        grids = [grid for image in images for grid in self.grids(image)]
        packing = self._packing = self.pack(grids)
        with self._probe.capture(needs) as captured:
            encoded = self.encoded(images, grids)
        return {FEATURES: self.features(encoded, packing), **self._probe.columns(captured)}

    def grids(self, image: EncoderImage) -> Grids:
        """Return the grid of each picture that an image is to the tower."""
        return [image.layout.whole_grid or (0, 0)]

    def patches(self, grids: Grids) -> Grids:
        """Return rows and columns of patches of each picture, given those of tokens."""
        down, across = self._merge
        return [(rows * down, columns * across) for rows, columns in grids]

    def pack(self, grids: Grids) -> Packing:
        """Return how the patches of pictures with these grids are packed."""
        return Packing.of_rasters(grids, self._merge, device_of(self.module))

    @abstractmethod
    def encoded(self, images: Sequence[EncoderImage], grids: Grids) -> torch.Tensor:
        """Return the output of the tower for images with these grids."""

    @abstractmethod
    def features(self, encoded: torch.Tensor, packing: Packing) -> torch.Tensor:
        """Return `[tokens, D]`, what the projector takes, of the output of `encoded`."""

    def _read(self, need: Need, layer: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return self._packing.read(need, layer, query, key)

    def _fold(self, norms: torch.Tensor) -> torch.Tensor:
        return self._packing.sums(norms)
