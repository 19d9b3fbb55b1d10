"""Pixtral's tower, as Mistral3 has it, whose output is patches in raster order. A merger in the
projector concatenates the features of 2 x 2 of them.

`project` and `features` are the halves of the `forward` of `Mistral3MultiModalProjector` and
`Mistral3PatchMerger`. Pixels are `[3, height, width]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from vllm_pruner.worker.merged_tower import Grids, MergedTower

if TYPE_CHECKING:
    from vllm_pruner.tower import EncoderImage
    from vllm_pruner.worker.packing import Packing

__all__ = ["PixtralTower"]


class PixtralTower(MergedTower):
    """The tower of a model with Mistral3's projector; see `Tower`."""

    layers, attention, norm = "transformer.layers", "attention.attn", ""

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
        super().__init__(model, model.vision_tower.config, (side, side))

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        return super().project(self._projector.patch_merger.merging_layer(rows))

    def run(self, images: Sequence[EncoderImage], grids: Grids) -> torch.Tensor:
        return torch.cat(self.module([image.pixels for image in images]))

    def features(self, encoded: torch.Tensor, packing: Packing) -> torch.Tensor:
        # Channels are the outer index and a token's patches the inner one, as in the merger's
        # weights.
        return packing.by_token(self._projector.norm(encoded)).transpose(1, 2).flatten(1)
