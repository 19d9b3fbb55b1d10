"""Pixtral's tower, in both of vLLM's forms. Its output is patches in raster order. A merger behind
it concatenates the features of 2 x 2 of them; the first Pixtral has none, and a patch is a token.

`project` and `features` are the halves of the `forward` of `Mistral3MultiModalProjector` and
`Mistral3PatchMerger`, and of `PixtralForConditionalGeneration._process_image_input` and
`PatchMerger`. Pixels are `[3, height, width]`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from vllm_pruner.worker.merged_tower import Grids, MergedTower

if TYPE_CHECKING:
    from vllm_pruner.tower import EncoderImage
    from vllm_pruner.worker.packing import Packing

__all__ = ["MistralTower", "PixtralTower"]


class _RasterTower(MergedTower):
    """What both forms have in common."""

    layers, attention, norm = "transformer.layers", "attention.attn", ""

    def encoded(self, images: Sequence[EncoderImage], grids: Grids) -> torch.Tensor:
        return torch.cat(self.module([image.pixels for image in images]))

    def features(self, encoded: torch.Tensor, packing: Packing) -> torch.Tensor:
        # Channels are the outer index and a token's patches the inner one, as in the merger's
        # weights.
        return packing.by_token(self.normalised(encoded)).transpose(1, 2).flatten(1)

    @abstractmethod
    def normalised(self, patches: torch.Tensor) -> torch.Tensor:
        """Return the patches `[patches, D]` as they come to the merger."""


class PixtralTower(_RasterTower):
    """The tower of a model with Mistral3's projector; see `Tower`."""

    def __init__(self, model: Any) -> None:
        """Find the layers.

        Args:
            model: vLLM's model, with a `vision_tower` that is built up to the feature layer, and a
                `multi_modal_projector` with `norm`, `patch_merger`, `linear_1`, `act` and
                `linear_2`.

        Raises:
            RuntimeError: the tower lacks a module that `compat.tower` relies on.
        """
        side = int(model.config.spatial_merge_size)
        tower, projector = model.vision_tower, model.multi_modal_projector
        super().__init__(tower, projector, tower.config, (side, side))

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        return super().project(self._projector.patch_merger.merging_layer(rows))

    def normalised(self, patches: torch.Tensor) -> torch.Tensor:
        normalised: torch.Tensor = self._projector.norm(patches)
        return normalised


class MistralTower(_RasterTower):
    """The tower of a model in Mistral's own form; see `Tower`."""

    def __init__(self, model: Any) -> None:
        """Find the layers.

        Args:
            model: vLLM's model, with a `vision_encoder`, a `vision_language_adapter`, and, each
                possibly None, a `pre_mm_projector_norm` and a `patch_merger`.

        Raises:
            RuntimeError: the tower lacks a module that `compat.tower` relies on.
        """
        self._norm, self._merger = model.pre_mm_projector_norm, model.patch_merger
        config = model.vision_args
        side = 1 if self._merger is None else int(config.spatial_merge_size)
        tower, projector = model.vision_encoder, model.vision_language_adapter
        super().__init__(tower, projector, config, (side, side))

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        merged = rows if self._merger is None else self._merger.merging_layer(rows)
        projected: torch.Tensor = self._projector(merged)
        return projected

    def normalised(self, patches: torch.Tensor) -> torch.Tensor:
        if self._norm is None:
            return patches
        normalised: torch.Tensor = self._norm(patches)
        return normalised
