"""dots.ocr's tower: Qwen2-VL's with gated layers and norms without a mean, in a class of its own
that prepares everything while it runs.

So what a whole image needs is prepared here, and the layers are run one after another as in the
`forward` of `DotsVisionTransformer`. Follows `dots_ocr.py` of vLLM 0.32.
"""

from __future__ import annotations

from typing import Any

import torch

from vllm_pruner import compat
from vllm_pruner.methods.base import Need
from vllm_pruner.methods.on_device import sent
from vllm_pruner.worker.packed_tower import PAGE, PackedTower
from vllm_pruner.worker.probe import AttentionProbe, MergerInput, layers_by_need

__all__ = ["DotsTower"]


class DotsTower(PackedTower):
    """The tower of dots.ocr; see `PackedTower`."""

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
        self._width, self.own_width = model.config.hidden_size, None
        layers = layers_by_need(self._attention, len(self.module.blocks))
        self._head_size = layers[Need.KEYS].head_size
        # Checkpoints with `post_norm` false have the second one alone.
        norm = compat.last_norm(self.module, "post_trunk_norm", "merger.ln_q")
        heads = model.config.vision_config.num_attention_heads
        self._probe = AttentionProbe(layers, heads, self._read, MergerInput(norm, fold=self._fold))

    def _metadata(self, grids: list[list[int]]) -> dict[str, Any]:
        told = compat.tower_sequences(self.module, [rows * columns for _, rows, columns in grids])
        places = sent(torch.cat(self.module.get_pos_ids_by_grid(grids)), self.module.device)
        angles = self.module.rotary_pos_emb(max(max(grid) for grid in grids))
        return {
            "rotary_pos_emb": angles[places].flatten(1),
            "cu_seqlens": told.ends,
            "max_seqlen": told.longest,
        }

    def _run(
        self, pixels: torch.Tensor, grids: list[list[int]], metadata: dict[str, Any]
    ) -> torch.Tensor:
        tower = self.module
        hidden = tower.patch_embed(pixels.to(tower.device, tower.dtype))
        for block in tower.blocks:
            hidden = block(hidden, **metadata)
        if tower.post_trunk_norm is not None:
            hidden = tower.post_trunk_norm(hidden)
        rows: torch.Tensor = tower.merger(hidden)[:, : self._width]
        return rows
