"""Idefics3: `Idefics3ForConditionalGeneration`; SmolVLM is built on it.

Follows `vllm/model_executor/models/idefics3.py` of vLLM 0.32. An image is a grid of tiles followed
by the whole picture, or only the latter. The prompt, which is built before the tower runs, names
every tile (`<row_1_col_2>`) before its tokens. So each tile has a fixed share of the budget;
`crop_budget` "joint" acts as "per_crop" here.

Every tile is complete, since the processor resizes the picture to whole tiles. So the tower gets no
pixel mask, and there is no search for padding tiles, which costs vLLM a device sync.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm.model_executor.models.idefics3 import (
    Idefics3DummyInputsBuilder,
    Idefics3ForConditionalGeneration,
    Idefics3MultiModalProcessor,
    Idefics3ProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.parse import ImageSize

from vllm_pruner.families.intern_tiles import intern_family
from vllm_pruner.families.internvl import seen
from vllm_pruner.layout.tile_layout import TileLayout
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.captured_model import CapturedModel
from vllm_pruner.worker.shuffle_tower import ShuffleTower

__all__ = ["IDEFICS3", "PrunedIdefics3"]


def of_tiles(hf_config: Any, tiles: int) -> TileLayout:
    """Return the layout of an image of that many tiles."""
    vision = hf_config.vision_config
    patches = vision.image_size // vision.patch_size
    return TileLayout(patches // hf_config.scale_factor, tiles, fixed_shares=True)


def tokens(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> int:
    """Return the tokens of an image, as vLLM counts them."""
    processor = info.get_hf_processor(**mm_kwargs)
    size = {"image_height": height, "image_width": width}
    return int(info.get_num_image_tokens(processor=processor, mm_kwargs=mm_kwargs, **size))


def tower(model: Any) -> ShuffleTower:
    """Return the tower of a model; see `Family.tower`."""
    connector, scale = model.model.connector, model.config.scale_factor
    return ShuffleTower(
        model.model.vision_model,
        connector.modality_projection,
        lambda patches: connector.pixel_shuffle(patches.flatten(1, 2), scale),
        layers="encoder.layers",
        attention="self_attn.attn",
        norm="post_layernorm",
        token=scale**2,
        page=of_tiles(model.config, 1).base,
        has_class_token=False,
    )


IDEFICS3 = intern_family("idefics3", "pixel_values", tokens, tower, seen, of_tiles)


class PrunedIdefics3Info(PrunedInfo, Idefics3ProcessingInfo):
    """`Idefics3ProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = IDEFICS3

    def get_image_size_with_most_features(self) -> ImageSize:
        """Return the size of vLLM's dummy images: of all shapes, a square has the most tiles."""
        edge = self.get_hf_processor().image_processor.max_image_size["longest_edge"]
        return ImageSize(width=edge, height=edge)


class PrunedIdefics3Processor(PrunedProcessor, Idefics3MultiModalProcessor):
    """`Idefics3MultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedIdefics3Processor, info=PrunedIdefics3Info, dummy_inputs=Idefics3DummyInputsBuilder
)
class PrunedIdefics3(CapturedModel, Idefics3ForConditionalGeneration):  # type: ignore[misc]
    """vLLM's Idefics3 with visual-token pruning; see `CapturedModel`."""

    family = IDEFICS3

    @property
    def decoder(self) -> Any:
        return self.model.text_model
