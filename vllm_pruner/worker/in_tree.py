"""Videos that vLLM prunes itself (`--video-pruning-rate`) beside images that vtprune prunes.

vLLM's model appends columns to the rows that it kept: time, row and column in the video; then the
width of the grid where a video is one run, or, where the text of each frame is embedded among its
rows, whether a row is a frame's mark and whether it is of the picture. vLLM's hook computes
positions from them and from those of earlier steps. Here the columns become the digits of
`layout.positions`, so that videos and images are placed alike, and nothing depends on earlier
steps.

Follows `_postprocess_video_embeds_evs` of `qwen2_5_vl.py` and `qwen3_vl.py`, and
`vllm/multimodal/video_prune/evs.py`, of vLLM 0.32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from vllm_pruner import compat
from vllm_pruner.layout.placed_rows import with_lumped_places, with_places
from vllm_pruner.worker.mrope import MRopeModel

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.multimodal.inputs import MultiModalFeatureSpec

__all__ = ["InTreeByWidthModel", "InTreeModel"]

_COLUMNS, _COLUMNS_APART = 4, 5
"""How many columns vLLM appends to the rows of a video that is one run, and of one with text."""


class InTreeModel(MRopeModel):
    """An `MRopeModel` whose videos vLLM can prune.

    Changes besides those of `MRopeModel`, if the operator has vLLM prune videos: vLLM's columns are
    taken off its rows, and those of a video become digits.
    """

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        mm_config = vllm_config.model_config.get_multimodal_config()
        self.is_multimodal_pruning_enabled = compat.in_tree(mm_config) is not None

    def marked(self, rows: torch.Tensor, is_image: bool) -> torch.Tensor:
        if not self.is_multimodal_pruning_enabled:
            return super().marked(rows, is_image)
        assert self.family.videos is not None
        is_apart = self.family.videos.apart
        width = rows.shape[1] - (_COLUMNS_APART if is_apart else _COLUMNS)
        rows, columns = rows[:, :width], rows[:, width:].long()
        if is_image:
            return super().marked(rows, is_image)
        if is_apart:
            return with_lumped_places(rows, columns[:, :3], columns[:, 3], columns[:, 4])
        return with_places(rows.unsqueeze(0), columns[:, :3].unsqueeze(0), is_image=False)[0]


class InTreeByWidthModel(InTreeModel):
    """An `InTreeModel` whose text continues where the width of an image or video ends.

    Changes besides those of `InTreeModel`, if the operator has vLLM prune videos: whatever their
    height and duration, vLLM's hook counts text after images and videos from their width, and the
    answer from the largest position.
    """

    def stock_positions(
        self, tokens: list[int], features: list[MultiModalFeatureSpec]
    ) -> tuple[torch.Tensor, int]:
        positions, delta = super().stock_positions(tokens, features)
        if not self.is_multimodal_pruning_enabled:
            return positions, delta
        stock: Any = self
        grids = stock.iter_mm_grid_thw(features)
        for offset, frames, rows, columns, _ in grids:
            end = offset + frames * rows * columns
            base = positions[0, offset - 1] + 1 if offset else 0
            if end < positions.shape[1]:
                positions[:, end:] += base + columns - positions[0, end]
        return positions, self.delta(positions, len(tokens))

    def delta(self, positions: torch.Tensor, length: int) -> int:
        if not self.is_multimodal_pruning_enabled:
            return super().delta(positions, length)
        return int(positions.max()) + 1 - length
