"""GLM-OCR's tower: GLM-V's without learned positions, in a class of its own that prepares nothing
before it runs and takes nothing prepared.

So what a whole image needs is prepared here as `Glm4vVisionTransformer` does, and the layers are
run one after another as in the `forward` of `GlmOcrVisionTransformer`. Follows `glm_ocr.py` of vLLM
0.32.
"""

from __future__ import annotations

from typing import Any

import torch

from vllm_pruner import compat
from vllm_pruner.worker.packed_tower import PackedTower

__all__ = ["GlmOcrTower"]


class GlmOcrTower(PackedTower):
    """The tower of GLM-OCR; see `PackedTower`."""

    def _metadata(self, grids: list[list[int]]) -> dict[str, Any]:
        cos, sin, _ = self.module.rot_pos_emb(grids)
        # Patches of a video attend within their frame.
        lengths = [rows * columns for frames, rows, columns in grids for _ in range(frames)]
        told = compat.tower_sequences(self.module, lengths)
        return {
            "rotary_pos_emb_cos": cos,
            "rotary_pos_emb_sin": sin,
            "cu_seqlens": told.ends,
            "max_seqlen": told.longest,
        }

    def _run(
        self, pixels: torch.Tensor, grids: list[list[int]], metadata: dict[str, Any]
    ) -> torch.Tensor:
        tower = self.module
        hidden = tower.patch_embed(self._normalised(pixels)).unsqueeze(1)
        for block in tower.blocks:
            hidden = block(hidden, **metadata)
        hidden = tower.post_layernorm(hidden).view(-1, self._merge, self._merge, hidden.shape[-1])
        merged = tower.downsample(hidden.permute(0, 3, 1, 2))
        rows: torch.Tensor = tower.merger(merged.view(-1, tower.out_hidden_size))
        return rows

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return pixels as the layers take them; vLLM may have left their normalisation to the
        device."""
        tower = self.module
        here = pixels.to(tower.device)
        normalise = getattr(tower, "input_norm", None)  # which 0.31 does not have
        found: torch.Tensor = (
            here.to(tower.dtype) if normalise is None else normalise(here, tower.dtype)
        )
        return found
