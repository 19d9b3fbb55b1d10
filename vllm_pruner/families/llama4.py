"""Llama 4: `Llama4ForConditionalGeneration`, Scout and Maverick.

Follows `vllm/model_executor/models/mllama4.py` of vLLM 0.32. An image is a grid of tiles followed
by the whole picture, or one tile (`llama4_tiles`); a token is 2 x 2 patches. The prompt, which is
built before the tower runs, has a separator behind every tile (`<|tile_x_separator|>`, at the end
of a row `<|tile_y_separator|>`) and `<|image|>` before the whole picture. Positions are plain, so
these alone tell which tile a token is of. All stay, and each tile has a fixed share of the budget
(`padded_tiles`); `crop_budget` "joint" acts as "per_crop" here.

Patches become tokens within the tower (`vision_adapter`), behind its last norm. Methods compare
these tokens; only kept ones are projected.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from vllm.model_executor.models.mllama4 import (
    Llama4ForConditionalGeneration,
    Mllama4DummyInputsBuilder,
    Mllama4MultiModalProcessor,
    Mllama4ProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import ImageProcessorItems

from vllm_pruner.families.internvl import seen
from vllm_pruner.families.llama4_tiles import (
    SHOWN,
    images,
    largest,
    layout,
    layout_of_item,
    shown,
)
from vllm_pruner.families.merging import MERGING
from vllm_pruner.families.unsuited import check_one_grid
from vllm_pruner.family import Family
from vllm_pruner.layout.cuts import cut_runs
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.captured_model import CapturedModel
from vllm_pruner.worker.shuffle_tower import ShuffleTower, squares

if TYPE_CHECKING:
    from transformers import BatchFeature
    from vllm.multimodal.parse import MultiModalDataItems

    from vllm_pruner.layout.cuts import Cut
    from vllm_pruner.settings.config import PruneConfig

__all__ = ["LLAMA4", "PrunedLlama4"]


def tower(model: Any) -> ShuffleTower:
    """Return the tower of a model; see `Family.tower`."""
    vision = model.config.vision_config
    side = round(1 / vision.pixel_shuffle_ratio)
    return ShuffleTower(
        model.vision_model,
        model.multi_modal_projector,
        lambda patches: squares(patches, side),
        layers="model.layers",
        attention="self_attn.attn",
        norm="layernorm_post",
        token=side**2,
        page=model.get_image_patches_per_chunk(),
        has_class_token=True,
        class_token_last=True,
        merged=vision.projector_output_dim,
    )


LLAMA4 = Family(
    "llama4",
    largest,
    layout,
    images,
    tower,
    seen,
    check_one_grid,
    captured=True,
    captured_unasked=False,
    stock_captured=True,
    **MERGING,
)


class PrunedLlama4Info(PrunedInfo, Mllama4ProcessingInfo):
    """`Mllama4ProcessingInfo` with settings; see `PrunedInfo` for the changes.

    Own change: the placeholders of an image are cut tile by tile.
    """

    family = LLAMA4

    @property
    def image_sign(self) -> int:
        return int(self.get_hf_processor().image_token_id)

    def cut_of(self, modality: str, config: PruneConfig, item: Mapping[str, Any]) -> Cut:
        tiles = layout_of_item(self.get_hf_config(), item)
        return partial(cut_runs, divide=lambda _, kept: tiles.shares(kept))


class PrunedLlama4Processor(PrunedProcessor, Mllama4MultiModalProcessor):  # type: ignore[misc]
    """`Mllama4MultiModalProcessor` with fewer placeholders; see `PrunedProcessor`.

    Own change: how much of an image's tiles shows the picture is a field.
    """

    def _apply_hf_processor_main(
        self, mm_items: MultiModalDataItems, hf_kwargs: Mapping[str, object]
    ) -> BatchFeature:
        output = super()._apply_hf_processor_main(mm_items, hf_kwargs)
        if "aspect_ratios" in output:
            items = mm_items.get_items("image", ImageProcessorItems)
            sizes = [items.get_image_size(place) for place in range(len(items))]
            found = [shown(self.info, size.height, size.width, hf_kwargs) for size in sizes]
            output[SHOWN] = torch.tensor(found)
        return output

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        fields = super()._get_mm_fields_config(hf_inputs, hf_processor_mm_kwargs)
        return {**fields, SHOWN: MultiModalFieldConfig.batched("image", keep_on_cpu=True)}


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedLlama4Processor, info=PrunedLlama4Info, dummy_inputs=Mllama4DummyInputsBuilder
)
class PrunedLlama4(CapturedModel, Llama4ForConditionalGeneration):
    """vLLM's Llama 4 with visual-token pruning; see `CapturedModel`.

    Own change: what is parsed of images has `SHOWN` too.
    """

    family = LLAMA4

    def _parse_and_validate_image_input(self, **kwargs: object) -> Any:
        parsed = super()._parse_and_validate_image_input(**kwargs)
        if parsed is not None:  # vLLM's own graphs pick their fields from a batch
            setattr(parsed, SHOWN, kwargs.get(SHOWN))
        return parsed
