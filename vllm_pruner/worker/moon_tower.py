"""MoonViT, Kimi-VL's tower. Its output has the patches of a token one behind the other.

`project` and `features` are the halves of `KimiVLMultiModalProjector.forward`. Pixels are
`[patches, 3, P, P]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from vllm_pruner.worker.merged_tower import Grids, MergedTower

if TYPE_CHECKING:
    from vllm_pruner.tower import EncoderImage
    from vllm_pruner.worker.packing import Packing

__all__ = ["MoonTower"]


class MoonTower(MergedTower):
    """The tower of a model with Kimi-VL's projector; see `Tower`."""

    layers, attention, norm = "encoder.blocks", "attn", "encoder.final_layernorm"

    def __init__(self, model: Any) -> None:
        """Find the layers.

        Args:
            model: has `vision_tower`, a MoonViT with `prepare_encoder_metadata`, and
                `multi_modal_projector` with `pre_norm`, `linear_1`, `act` and `linear_2`.

        Raises:
            RuntimeError: the tower lacks a module that `compat.tower` relies on.
        """
        config = model.config.vision_config
        rows, columns = config.merge_kernel_size
        tower, projector = model.vision_tower, model.multi_modal_projector
        super().__init__(tower, projector, config, (rows, columns))

    def run(self, images: Sequence[EncoderImage], grids: Grids) -> torch.Tensor:
        down, across = self._merge
        patches = [(rows * down, columns * across) for rows, columns in grids]
        metadata = self.module.prepare_encoder_metadata(patches)
        pixels = torch.cat([image.pixels for image in images])
        tokens: torch.Tensor = self.module(pixels, None, encoder_metadata=metadata)
        return tokens

    def features(self, encoded: torch.Tensor, packing: Packing) -> torch.Tensor:
        normalised: torch.Tensor = self._projector.pre_norm(encoded)
        return normalised.flatten(1)
