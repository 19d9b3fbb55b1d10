"""Qwen3-Omni's tower: Qwen3-VL's in a class of its own, which takes the grids as a tensor and
prepares nothing before it runs.

Follows `Qwen3Omni_VisionTransformer` of vLLM 0.32.
"""

from __future__ import annotations

from typing import Any

import torch

from vllm_pruner.worker.packed_tower import PackedTower

__all__ = ["OmniTower"]


class OmniTower(PackedTower):
    """The tower of Qwen3-Omni; see `PackedTower`."""

    def _row_width(self, levels: int) -> int:
        width: int = self._config.out_hidden_size
        return width * (1 + levels)

    def _metadata(self, grids: list[list[int]]) -> dict[str, Any]:
        return {}

    def _run(
        self, pixels: torch.Tensor, grids: list[list[int]], metadata: dict[str, Any]
    ) -> torch.Tensor:
        rows: torch.Tensor = self.module(pixels, torch.tensor(grids))  # on the host, as vLLM's
        return rows
