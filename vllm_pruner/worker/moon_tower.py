"""MoonViT, Kimi-VL's tower, and its form for videos, MoonViT3d, Kimi-K2.5's. The output of both has
the patches of a token one behind the other.

`project` and `features` are the halves of `KimiVLMultiModalProjector.forward`, which
`KimiK25MultiModalProjector` repeats, also in its second form, Kimi-K3's. Pixels are
`[patches, 3, P, P]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from vllm_pruner.worker.merged_tower import Grids, MergedTower

if TYPE_CHECKING:
    from vllm_pruner.tower import EncoderImage
    from vllm_pruner.worker.packing import Packing

__all__ = ["MoonTower", "MoonTower3d", "NormedMoonTower3d"]


class MoonTower(MergedTower):
    """The tower of a model with Kimi-VL's projector; see `Tower`."""

    layers, attention, norm = "encoder.blocks", "attn", "encoder.final_layernorm"

    projector: ClassVar[str] = "multi_modal_projector"
    """The model's name of its projector, which has `pre_norm`, `linear_1`, `act` and `linear_2`."""

    def __init__(self, model: Any) -> None:
        """Find the layers.

        Args:
            model: has a MoonViT as `vision_tower`, and a `projector`.

        Raises:
            RuntimeError: the tower lacks a module that `compat.tower` relies on.
        """
        config = model.config.vision_config
        rows, columns = config.merge_kernel_size
        tower, projector = model.vision_tower, getattr(model, self.projector)
        super().__init__(tower, projector, config, (rows, columns))

    def encoded(self, images: Sequence[EncoderImage], grids: Grids) -> torch.Tensor:
        metadata = self.module.prepare_encoder_metadata(self.patches(grids))
        pixels = torch.cat([image.pixels for image in images])
        tokens: torch.Tensor = self.module(pixels, None, encoder_metadata=metadata)
        return tokens

    def features(self, encoded: torch.Tensor, packing: Packing) -> torch.Tensor:
        normalised: torch.Tensor = self._projector.pre_norm(encoded)
        return normalised.flatten(1)


class MoonTower3d(MoonTower):
    """Kimi-K2.5's tower, to which an image is a video of one frame; see `Tower`."""

    projector = "mm_projector"

    def encoded(self, images: Sequence[EncoderImage], grids: Grids) -> torch.Tensor:
        frames = [[1, rows, columns] for rows, columns in self.patches(grids)]
        pixels = torch.cat([image.pixels for image in images])
        metadata = self.module.encoder.prepare_encoder_metadata(frames, device=pixels.device)
        return torch.cat(self.module(pixels, frames, encoder_metadata=metadata))


class NormedMoonTower3d(MoonTower3d):
    """Kimi-K3's tower, whose projector normalises rows of the decoder instead of patches; see
    `Tower`."""

    def features(self, encoded: torch.Tensor, packing: Packing) -> torch.Tensor:
        return encoded.flatten(1)

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        normalised: torch.Tensor = self._projector.post_norm(super().project(rows))
        return normalised
