"""SigLIP2's tower for images of any size (NaFlex), LFM2-VL's: the tiles of an image and the whole
picture in one sequence, each of which attends within itself.

`project` and `features` are the halves of `Lfm2VLMultiModalProjector.forward`, `encoded` is what
`image_pixels_to_features` does before it. Pixels are `[crops, most, 3 * P * P]`: the patches of a
crop in raster order, and padding, which the tower does not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from vllm.forward_context import set_forward_context

from vllm_pruner.layout.tiled_grid import TiledGrid
from vllm_pruner.worker.merged_tower import Grids, MergedTower

if TYPE_CHECKING:
    from vllm_pruner.tower import EncoderImage
    from vllm_pruner.worker.packing import Packing

__all__ = ["Siglip2Tower"]


class Siglip2Tower(MergedTower):
    """The tower of a model with LFM2-VL's projector; see `Tower`."""

    layers, attention = "vision_model.encoder.layers", "self_attn.attn"
    norm = "vision_model.post_layernorm"

    def __init__(self, model: Any) -> None:
        """Find the layers.

        Args:
            model: vLLM's model, with a `vision_tower` and a `multi_modal_projector`.

        Raises:
            RuntimeError: the tower lacks a module that `compat.tower` relies on.
        """
        projector, self._vllm_config = model.multi_modal_projector, model.vllm_config
        side = projector.factor
        super().__init__(model.vision_tower, projector, model.config.vision_config, (side, side))

    def grids(self, image: EncoderImage) -> Grids:
        layout = image.layout
        assert isinstance(layout, TiledGrid)
        return [(grid.rows, grid.columns) for grid in layout.grids]

    def encoded(self, images: Sequence[EncoderImage], grids: Grids) -> torch.Tensor:
        sizes = self.patches(grids)
        crops = [crop for image in images for crop in image.pixels]
        packed = [
            crop[: rows * columns] for crop, (rows, columns) in zip(crops, sizes, strict=True)
        ]
        longest = torch.tensor([self._packing.longest], dtype=torch.int32, device="cpu")
        with set_forward_context(None, self._vllm_config):
            patches: torch.Tensor = self.module(
                pixel_values_packed=torch.cat(packed),
                spatial_shapes=torch.tensor(sizes, device="cpu"),
                cu_seqlens=self._packing.cu_seqlens,
                max_seqlen=longest,
            )
        return patches[0]

    def features(self, encoded: torch.Tensor, packing: Packing) -> torch.Tensor:
        tokens = packing.by_token(encoded).flatten(1)
        if not self._projector.projector_use_layernorm:
            return tokens
        normalised: torch.Tensor = self._projector.layer_norm(tokens)
        return normalised

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        hidden = self._projector.act(self._projector.linear_1(rows))
        projected: torch.Tensor = self._projector.linear_2(hidden)
        return projected
