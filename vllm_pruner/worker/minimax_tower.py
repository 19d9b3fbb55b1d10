"""MiniMax-M3's tower: a vision transformer, whose patches are projected into the decoder's space
one by one and then merged four by four.

Follows `MiniMaxVLVisionModel` of vLLM 0.32. Patches of a video attend to all of its frames, or to
those of their segment where the checkpoint limits it (`vision_segment_max_frames`).
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch

from vllm_pruner import compat
from vllm_pruner.methods.base import Need
from vllm_pruner.worker.columns import device_of
from vllm_pruner.worker.packed_tower import PAGE, PackedTower
from vllm_pruner.worker.packing import Packing
from vllm_pruner.worker.probe import AttentionProbe, MergerInput, layers_by_need

__all__ = ["MiniMaxTower"]

_LAYERS = "vision_model.encoder.layers"


class MiniMaxTower(PackedTower):
    """The tower of MiniMax-M3; see `PackedTower`."""

    def __init__(self, model: Any) -> None:
        """Find the layers.

        Args:
            model: vLLM's model, with a `vision_tower`.

        Raises:
            RuntimeError: the tower lacks a module that `compat.tower` relies on.
        """
        self.module, self.page = model.vision_tower, PAGE
        self._merge: int = self.module.spatial_merge_size
        self.patches_per_row = self._merge**2
        self._width, self.own_width = self._row_width(levels=0), None
        depth = len(self.module.get_submodule(_LAYERS))
        layers = layers_by_need(self._attention, depth)
        self._head_size = layers[Need.KEYS].head_size
        transformer = compat.last_norm(self.module, "vision_model")
        merger = MergerInput(transformer, is_returned=True, fold=self._fold)
        heads = model.config.vision_config["num_attention_heads"]
        self._probe = AttentionProbe(layers, heads, self._read, merger)

    def _attention(self, layer: int) -> Any:
        return compat.tower_attention(self.module, _LAYERS, layer, "self_attn.attn")

    def _metadata(self, grids: list[list[int]]) -> dict[str, Any]:
        prepared: dict[str, Any] = self.module.vision_model.prepare_encoder_metadata(
            grids, device=device_of(self.module)
        )
        return prepared

    def _run(
        self, pixels: torch.Tensor, grids: list[list[int]], metadata: dict[str, Any]
    ) -> torch.Tensor:
        own = pixels.type(self.module.dtype)
        rows: torch.Tensor = self.module(own, None, encoder_metadata=metadata)
        return rows

    def _pack(self, grids: list[list[int]], metadata: dict[str, Any]) -> Packing:
        segments = self.module.vision_model._apply_max_frames_limit(grids)
        sizes = [prod(each) for each in segments]
        return Packing.of(sizes, self.patches_per_row, None, device_of(self.module))
