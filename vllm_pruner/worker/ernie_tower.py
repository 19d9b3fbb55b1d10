"""ERNIE-4.5-VL's tower, Qwen2-VL's without its merger, and the resampler behind it, which joins 2 x
2 patches and then two frames to one token; an image is two equal frames to it.

The tower attends within a frame, so the frames of a video are pictures to it, and rows are returned
for each: `GridLayout.joined` puts those of a token together. `project` is what
`VariableResolutionResamplerModel.forward` does of them, row by row, without asking the host for
grids. Methods compare the four normalised patches of a token, of a video those of both frames, and
only kept tokens are projected. Follows `ernie45_vl.py` of vLLM 0.32.

Pixels are `[patches, 3 * P * P]`; the patches of a token are consecutive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.worker.captured_packed_tower import CapturedPacking
from vllm_pruner.worker.merged_tower import Grids, MergedTower
from vllm_pruner.worker.packing import Packing
from vllm_pruner.worker.thinned import patches_of, thinned

if TYPE_CHECKING:
    from vllm_pruner.tower import EncoderImage

__all__ = ["FRAMES", "CapturedErnieTower", "ErnieTower"]

FRAMES = 2
"""That are joined to one; fixed in vLLM's resampler."""


class ErnieTower(MergedTower):
    """The tower of ERNIE-4.5-VL; see `Tower` and `ThinTower`."""

    layers, attention, norm, heads = "blocks", "attn.attn", "ln", "num_heads"

    def __init__(self, model: Any) -> None:
        """Find the layers.

        Args:
            model: vLLM's model, with a `vision_model` and a `resampler_model`.

        Raises:
            RuntimeError: the tower lacks a module that `compat.tower` relies on.
        """
        config = model.config.vision_config
        merge = config.spatial_merge_size
        super().__init__(model.vision_model, model.resampler_model, config, (merge, merge))

    def grids(self, image: EncoderImage) -> Grids:
        layout = image.layout
        assert isinstance(layout, GridLayout)
        return [layout.whole_grid] * (max(1, layout.frames) * layout.joined)

    def pack(self, grids: Grids) -> Packing:
        sizes = [rows * columns for rows, columns in self.patches(grids)]
        return Packing.of(sizes, self.patches_per_row, None, self.module.device)

    def encoded(self, images: Sequence[EncoderImage], grids: Grids) -> torch.Tensor:
        return self._run(torch.cat([image.pixels for image in images]), self._metadata(grids))

    def features(self, encoded: torch.Tensor, packing: Packing) -> torch.Tensor:
        return packing.by_token(encoded).flatten(1)

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        own: Any = self._projector
        # [rows, frames, patches of a frame's token * D]
        frames = rows.reshape(-1, rows.shape[-1] // own.spatial_dim, own.spatial_dim)
        each = own.spatial_linear2(own.spatial_gelu(own.spatial_linear1(frames)[0]))[0]
        both = own.spatial_norm(each).expand(-1, FRAMES, -1).flatten(1)
        joined = own.temporal_linear2(own.temporal_gelu(own.temporal_linear1(both)[0]))[0]
        projected: torch.Tensor = own.after_norm(own.mlp(own.temporal_norm(joined))[0])
        return projected.view(*rows.shape[:-1], -1)

    @torch.no_grad()
    def encode_some(
        self, images: Sequence[EncoderImage], kept: torch.Tensor, lengths: Sequence[int]
    ) -> torch.Tensor:
        each = self.patches_per_row
        pixels = torch.cat([image.pixels for image in images])[patches_of(kept, each)]
        whole = self._metadata([grid for image in images for grid in self.grids(image)])
        less = thinned(self.module, whole, kept, lengths, each)
        tokens: torch.Tensor = self._run(pixels, less).unflatten(0, (-1, each)).flatten(1)
        return tokens

    def _metadata(self, grids: Grids) -> dict[str, Any]:
        """Return what the tower prepares before it runs."""
        frames = [[1, rows, columns] for rows, columns in self.patches(grids)]
        prepared: dict[str, Any] = self.module.prepare_encoder_metadata(frames)
        return prepared

    def _grid(self, image: EncoderImage) -> list[int]:
        """Return the numbers of frames, and of rows and columns of patches."""
        frames = self.grids(image)
        return [len(frames), *self.patches(frames)[0]]

    def _pack(self, grids: list[list[int]], metadata: dict[str, Any]) -> Packing:
        sizes = [rows * columns for _, rows, columns in grids]
        return Packing.of(sizes, self.patches_per_row, None, self.module.device)

    def _run(self, pixels: torch.Tensor, metadata: dict[str, Any]) -> torch.Tensor:
        """Return `[patches, D]`."""
        encoded: torch.Tensor = self.module(pixels, encoder_metadata=metadata)
        return encoded


class CapturedErnieTower(CapturedPacking, ErnieTower):
    """That tower in CUDA graphs, without the resampler; see `CapturedPacking`."""

    def as_field(self, grids: list[list[int]]) -> Any:
        return torch.tensor(grids, device="cpu")

    def rows_of(self, returned: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = returned.unflatten(0, (-1, self.patches_per_row)).flatten(1)
        return tokens
