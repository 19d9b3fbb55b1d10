"""LLaVA-NeXT (LLaVA-1.6): `LlavaNextForConditionalGeneration` with a CLIP or SigLIP tower.

Follows `vllm/model_executor/models/llava_next.py` of vLLM 0.32, which always merges crops as
`spatial_unpad`: the base crop, then the raster of the others without padding, with a newline token
after each row. A budget covers all of these; `newlines` explains how it is divided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape
from vllm.model_executor.models.llava import LlavaDummyInputsBuilder
from vllm.model_executor.models.llava_next import (
    LlavaNextForConditionalGeneration,
    LlavaNextMultiModalProcessor,
    LlavaNextProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.families.llava import seen
from vllm_pruner.families.unsuited import check_one_grid
from vllm_pruner.family import Family
from vllm_pruner.layout.crop_layout import CropLayout
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.tower import EncoderImage
from vllm_pruner.worker.crop_model import CropModel
from vllm_pruner.worker.crop_tower import CropTower, crop_side, crop_tokens

__all__ = ["LLAVA_NEXT", "PrunedLlavaNext", "check_crops", "check_method", "images", "layout_of"]

_MERGE = "spatial_unpad"


def largest(info: Any) -> CropLayout:
    """Return the layout of a picture that fills the largest grid; see `Family.largest`."""
    hf_config = info.get_hf_config()
    check_crops(hf_config)
    layouts = (layout_of(hf_config, *size) for size in hf_config.image_grid_pinpoints)
    return max(layouts, key=lambda each: each.tokens)


def check_crops(hf_config: Any) -> None:
    """Raise a `ConfigError` if crops are merged in another way or are not square."""
    merge = getattr(hf_config, "mm_patch_merge_type", _MERGE)
    if merge != _MERGE:
        raise ConfigError(f"mm_patch_merge_type is {merge!r}; allowed: {_MERGE!r}, as vLLM merges")
    if not isinstance(hf_config.vision_feature_layer, int):
        raise ConfigError(
            f"vision_feature_layer is {hf_config.vision_feature_layer}; allowed: one layer"
        )
    tokens, side = crop_tokens(hf_config), crop_side(hf_config)
    if tokens != side**2:
        raise ConfigError(
            f"a crop has {tokens} visual tokens under vision_feature_select_strategy "
            f"{hf_config.vision_feature_select_strategy!r}; allowed: {side**2}, a square"
        )


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> CropLayout:
    """Return the layout of an image of that size in pixels; see `Family.layout`."""
    return layout_of(info.get_hf_config(), height, width)


def layout_of(hf_config: Any, height: int, width: int) -> CropLayout:
    """Return the layout of an image of that size in pixels."""
    side = crop_side(hf_config)
    grid = get_anyres_image_grid_shape(
        (height, width), hf_config.image_grid_pinpoints, hf_config.vision_config.image_size
    )
    rows, columns = grid[0] * side, grid[1] * side
    top = left = 0
    # vLLM's arithmetic, rounding included, because its processor counts placeholders with it.
    if width / height > columns / rows:
        top = (rows - int(round(height * (columns / width), 7))) // 2
    else:
        left = (columns - int(round(width * (rows / height), 7))) // 2
    return CropLayout(side**2, side, grid, (top, rows - top), (left, columns - left))


def images(
    hf_config: Any,
    image_input: Any,
    layout_of: Callable[[Any, int, int], CropLayout] = layout_of,
) -> list[EncoderImage]:
    """Return the images of a batch, without crops that only pad them; see `Family.images`."""
    sizes = image_input["image_sizes"].tolist()  # on the CPU already
    layouts = [layout_of(hf_config, *size) for size in sizes]
    return [
        EncoderImage(pixels[: each.crops], each)
        for pixels, each in zip(image_input["pixel_values"], layouts, strict=True)
    ]


check_method = partial(check_one_grid, image="several crops with newlines between rows")
"""See `Family.check_method`."""

LLAVA_NEXT = Family(
    "llava_next",
    largest,
    layout,
    images,
    CropTower,
    seen,
    check_method,
    captured=True,
    byte_pixels=True,
)


class PrunedLlavaNextInfo(PrunedInfo, LlavaNextProcessingInfo):
    """`LlavaNextProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = LLAVA_NEXT


class PrunedLlavaNextProcessor(PrunedProcessor, LlavaNextMultiModalProcessor[PrunedLlavaNextInfo]):
    """`LlavaNextMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedLlavaNextProcessor, info=PrunedLlavaNextInfo, dummy_inputs=LlavaDummyInputsBuilder
)
class PrunedLlavaNext(CropModel, LlavaNextForConditionalGeneration):
    """vLLM's LLaVA-NeXT with visual-token pruning; see `CropModel`.

    Own change: crops that only pad an image to the largest of its batch are not encoded.
    """

    family = LLAVA_NEXT
