"""Command A Vision: `Cohere2VisionForConditionalGeneration`.

Follows `vllm/model_executor/models/cohere2_vision.py` of vLLM 0.32. An image is a grid of tiles
followed by the whole picture, or one tile; a token is 2 x 2 patches of SigLIP. The prompt, which is
built before the tower runs, has a line break behind each tile. Positions are plain, so these alone
tell which tile a token is of: all stay, and each tile has a fixed share of the budget;
`crop_budget` "joint" acts as "per_crop" here. No tile is padded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from vllm.model_executor.models.cohere2_vision import (
    Cohere2VisionDummyInputsBuilder,
    Cohere2VisionForConditionalGeneration,
    Cohere2VisionMultiModalProcessor,
    Cohere2VisionProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.families.intern_tiles import intern_family
from vllm_pruner.families.internvl import seen
from vllm_pruner.layout.tile_layout import TileLayout
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.model import PrunedModel
from vllm_pruner.worker.shuffle_tower import ShuffleTower

__all__ = ["COHERE2_VISION", "PrunedCohere2Vision"]


def of_tiles(hf_config: Any, tiles: int) -> TileLayout:
    """Return the layout of an image of that many tiles."""
    vision = hf_config.vision_config
    side = vision.image_size // vision.patch_size // hf_config.downsample_factor
    return TileLayout(side, tiles, fixed_shares=True)


def tokens(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> int:
    """Return the tokens of an image, as vLLM counts them."""
    size = {"image_height": height, "image_width": width}
    processor = info.get_hf_processor(**mm_kwargs)
    tiles: int = info.get_num_patches(**size, processor=processor, mm_kwargs=mm_kwargs)
    return tiles * of_tiles(info.get_hf_config(), 1).tokens


def tower(model: Any) -> ShuffleTower:
    """Return the tower of a model; see `Family.tower`. Its `project` is the rest of
    `Cohere2VisionMultiModalProjector.forward`."""
    projector = model.multi_modal_projector

    def project(rows: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = projector.linear_2(projector.act(projector.linear_1(rows)))
        return projected

    return ShuffleTower(
        model.vision_tower.vision_model,
        project,
        lambda patches: projector.pixel_shuffle(patches.flatten(1, 2)),
        layers="encoder.layers",
        attention="self_attn.attn",
        norm="post_layernorm",
        token=model.config.downsample_factor**2,
        page=of_tiles(model.config, 1).tokens,
        has_class_token=False,
    )


COHERE2_VISION = intern_family(
    "cohere2_vision",
    "pixel_values",
    tokens,
    tower,
    seen,
    of_tiles,
    captured=False,
    stock_captured=False,
)


class PrunedCohere2VisionInfo(PrunedInfo, Cohere2VisionProcessingInfo):
    """`Cohere2VisionProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = COHERE2_VISION


class PrunedCohere2VisionProcessor(PrunedProcessor, Cohere2VisionMultiModalProcessor):
    """`Cohere2VisionMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedCohere2VisionProcessor,
    info=PrunedCohere2VisionInfo,
    dummy_inputs=Cohere2VisionDummyInputsBuilder,
)
class PrunedCohere2Vision(PrunedModel, Cohere2VisionForConditionalGeneration):
    """vLLM's Command A Vision with visual-token pruning; see `PrunedModel`."""

    family = COHERE2_VISION
