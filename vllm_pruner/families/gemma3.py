"""Gemma 3: `Gemma3ForConditionalGeneration`.

Follows `vllm/model_executor/models/gemma3_mm.py` of vLLM 0.32. An image is one tile, or with
`do_pan_and_scan` the whole picture followed by crops of it, separated by text; so each tile keeps
its share of the budget, as in `idefics3`. In the decoder, the tokens of a tile attend to each other
in both directions: vLLM finds them by the placeholders, which are those of the kept tokens.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import torch
from vllm.model_executor.models.gemma3_mm import (
    Gemma3DummyInputsBuilder,
    Gemma3ForConditionalGeneration,
    Gemma3MultiModalProcessor,
    Gemma3ProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.families.idefics3 import tokens
from vllm_pruner.families.intern_tiles import intern_family
from vllm_pruner.families.llava import seen
from vllm_pruner.layout.tile_layout import TileLayout
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.captured_model import CapturedModel
from vllm_pruner.worker.shuffle_tower import ShuffleTower, squares

__all__ = ["GEMMA3", "PrunedGemma3"]


def of_tiles(hf_config: Any, tiles: int) -> TileLayout:
    """Return the layout of an image of that many tiles."""
    return TileLayout(isqrt(hf_config.mm_tokens_per_image), tiles, fixed_shares=True, whole=0)


def tower(model: Any) -> ShuffleTower:
    """Return what runs the tower; see `Family.tower`."""
    projector = model.multi_modal_projector

    def project(rows: torch.Tensor) -> torch.Tensor:
        normed = projector.mm_soft_emb_norm(rows)
        projected: torch.Tensor = normed @ projector.mm_input_projection_weight
        return projected.type_as(rows)

    return ShuffleTower(
        model.vision_tower.vision_model,
        project,
        lambda patches: squares(patches, projector.kernel_size),
        layers="encoder.layers",
        attention="self_attn.attn",
        norm="post_layernorm",
        token=projector.kernel_size**2,
        page=model.config.mm_tokens_per_image,
        has_class_token=False,
        pool=projector.avg_pool,
    )


GEMMA3 = intern_family("gemma3", "pixel_values", tokens, tower, seen, of_tiles)


class PrunedGemma3Info(PrunedInfo, Gemma3ProcessingInfo):
    """`Gemma3ProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = GEMMA3

    @property
    def image_sign(self) -> int:
        hf_config: Any = self.ctx.get_hf_config()
        return int(hf_config.boi_token_index)


class PrunedGemma3Processor(PrunedProcessor, Gemma3MultiModalProcessor):
    """`Gemma3MultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedGemma3Processor, info=PrunedGemma3Info, dummy_inputs=Gemma3DummyInputsBuilder
)
class PrunedGemma3(CapturedModel, Gemma3ForConditionalGeneration):
    """vLLM's Gemma 3 with visual-token pruning; see `CapturedModel`."""

    family = GEMMA3
