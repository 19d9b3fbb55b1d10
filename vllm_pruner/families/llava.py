"""LLaVA-1.5 and its kin: `LlavaForConditionalGeneration` with a CLIP or SigLIP tower.

Follows `vllm/model_executor/models/llava.py` of vLLM 0.32. Every image is one crop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from vllm.model_executor.models.llava import (
    LlavaDummyInputsBuilder,
    LlavaForConditionalGeneration,
    LlavaMultiModalProcessor,
    LlavaProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.family import Family
from vllm_pruner.layout.crop_layout import CropLayout
from vllm_pruner.methods.base import Method, Need
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.settings.errors import SettingError
from vllm_pruner.tower import EncoderImage
from vllm_pruner.worker.crop_model import CropModel
from vllm_pruner.worker.crop_tower import CropTower, crop_side, crop_tokens

__all__ = ["LLAVA", "PrunedLlava"]


def largest(info: Any) -> CropLayout:
    """Return the layout of every image; see `Family.largest`."""
    return _layout_of(info.get_hf_config())


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> CropLayout:
    """Return the same layout for every size; see `Family.layout`."""
    return largest(info)


def _layout_of(hf_config: Any) -> CropLayout:
    return CropLayout(crop_tokens(hf_config), crop_side(hf_config))


def images(hf_config: Any, image_input: Any) -> list[EncoderImage]:
    """Return the images of a batch; see `Family.images`."""
    one = _layout_of(hf_config)
    return [EncoderImage(pixels, one) for pixels in image_input["pixel_values"].split(1)]


def seen(hf_config: Any, item: Mapping[str, Any]) -> torch.Tensor:
    """Return the crops of an image, in the order of the tower; see `Family.seen`."""
    crops: torch.Tensor = item["pixel_values"]
    return crops.flatten(0, -4)


def check_method(hf_config: Any, method: Method) -> None:
    """Refuse a method that needs a grid if the tower drops a patch; see `Family.check_method`."""
    if Need.GRID in method.needs and _layout_of(hf_config).whole_grid is None:
        strategy = hf_config.vision_feature_select_strategy
        why = (
            ", which needs the tower's whole grid of patches, but vision_feature_select_strategy "
            f"is {strategy!r}"
        )
        allowed = "'full' with this tower, or a method without a grid"
        raise SettingError("method", repr(method.name), allowed, why)


LLAVA = Family(
    "llava",
    largest,
    layout,
    images,
    CropTower,
    seen,
    check_method,
    one_layout=True,
    captured=True,
    byte_pixels=True,
)


class PrunedLlavaInfo(PrunedInfo, LlavaProcessingInfo):
    """`LlavaProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = LLAVA


class PrunedLlavaProcessor(PrunedProcessor, LlavaMultiModalProcessor):
    """`LlavaMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(
    PrunedLlavaProcessor, info=PrunedLlavaInfo, dummy_inputs=LlavaDummyInputsBuilder
)
class PrunedLlava(CropModel, LlavaForConditionalGeneration):
    """vLLM's LLaVA with visual-token pruning; see `CropModel`."""

    family = LLAVA
