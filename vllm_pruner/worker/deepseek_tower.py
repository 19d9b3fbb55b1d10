"""DeepSeek-V4's tower: patches of pictures of any shape in raster order. Behind it the aligner
concatenates 3 x 3 of them, with zeros for what an edge lacks.

vLLM encodes the pictures of a step one by one; here they are one sequence, by the entry that it has
for CUDA graphs. `features` and `project` are the halves of `DeepseekV4Aligner.forward`. Pixels are
`[patches, 3, P, P]`. Follows `vllm/models/deepseek_v4/common/vision.py` of vLLM 0.32.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import gelu
from vllm.model_executor.models.utils import StageMissingLayer
from vllm.models.deepseek_v4.common.vision import DeepseekV4ViT, build_packed_vit_metadata

from vllm_pruner.layout.paired_rows import PairedRows
from vllm_pruner.worker.columns import device_of
from vllm_pruner.worker.edge_packing import EdgePacking
from vllm_pruner.worker.merged_tower import Grids, MergedTower

if TYPE_CHECKING:
    from vllm_pruner.tower import EncoderImage
    from vllm_pruner.worker.packing import Packing

__all__ = ["DeepseekTower"]


class DeepseekTower(MergedTower):
    """The tower of a DeepSeek-V4; see `Tower`. Its grids are of patches."""

    layers, attention, norm = "blocks", "attn.attn", "norm"

    def __init__(self, model: Any) -> None:
        """Find the layers.

        Args:
            model: vLLM's model, with a tower `vision` and a projector `aligner`, both None if
                prompts may have no image.

        Raises:
            RuntimeError: the tower lacks a module that `compat.tower` relies on.
        """
        config = model.config
        self._side = int(config.vision_downsample_ratio)
        sizes = SimpleNamespace(
            hidden_size=config.vision_dim, num_attention_heads=config.vision_n_heads
        )
        tower, aligner = model.vision or _left_out(config), model.aligner
        super().__init__(tower, aligner, sizes, (self._side, self._side))

    def grids(self, image: EncoderImage) -> Grids:
        layout = image.layout
        assert isinstance(layout, PairedRows)
        return [(layout.high, layout.wide)]

    def pack(self, grids: Grids) -> Packing:
        return EdgePacking.of_sizes(grids, self._side, device_of(self.module))

    def encoded(self, images: Sequence[EncoderImage], grids: Grids) -> torch.Tensor:
        weight, tower = self._projector.w1.weight, self.module
        pixels = torch.cat([image.pixels for image in images]).to(weight.device, weight.dtype)
        told = build_packed_vit_metadata(
            grids, rope_dim=tower.rope_dim, rope_theta=tower.rope_theta, device=weight.device
        )
        patches: torch.Tensor = tower.forward_packed(
            pixels, told["vit_cos"], told["vit_sin"], told["cu_seqlens"], told["max_seqlen"]
        )
        return patches

    def features(self, encoded: torch.Tensor, packing: Packing) -> torch.Tensor:
        # Channels are the outer index and a token's patches the inner one, as `unfold` has them.
        return packing.by_token(encoded).transpose(1, 2).flatten(1)

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        hidden, _ = self._projector.w1(rows)
        projected: torch.Tensor = self._projector.w2(gelu(hidden))[0]
        return projected


def _left_out(config: Any) -> torch.nn.Module:
    """Return a tower as other models have one that is not loaded: its layers without weights."""
    with torch.device("meta"):
        return StageMissingLayer("image_tower", DeepseekV4ViT(config))
