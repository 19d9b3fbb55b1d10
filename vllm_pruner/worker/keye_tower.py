"""Keye-VL's tower: PaddleOCR-VL's, in vLLM a class of its own that turns the rotary positions once
for all layers, and its projector, which in 1.5 normalises the four patches of a token together.

Follows `keye.py` and `keye_vl1_5.py` of vLLM 0.32.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch

from vllm_pruner.methods.on_device import on_device
from vllm_pruner.worker.merged_tower import MergedTower
from vllm_pruner.worker.paddle_tower import PaddleTower

__all__ = ["Keye1_5Tower", "KeyeTower"]


class KeyeTower(PaddleTower):
    """The tower of Keye-VL; see `Tower` and `ThinTower`. Pixels are `[patches, 3 * P * P]`, those
    of a token one after another."""

    project = MergedTower.project

    def _told(self, rotary: torch.Tensor, lengths: Sequence[int]) -> dict[str, Any]:
        angles = rotary.repeat(1, 2)
        ends = on_device([0, *accumulate(lengths)], self.module.device, torch.int32)
        return {
            "attention_mask": None,
            "cu_seqlens": ends,
            "rope_emb": (angles.cos(), angles.sin()),
        }


class Keye1_5Tower(KeyeTower):
    """The tower of Keye-VL 1.5."""

    def _of_tokens(self, patches: torch.Tensor) -> torch.Tensor:
        normalised: torch.Tensor = self._projector.pre_norm(patches.flatten(1))
        return normalised
