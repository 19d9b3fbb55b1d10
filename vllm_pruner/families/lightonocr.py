"""LightOnOCR: `LightOnOCRForConditionalGeneration`, which reads documents.

Follows `vllm/model_executor/models/lightonocr.py` of vLLM 0.32. An image is one grid of tokens,
each 2 x 2 patches, as Mistral3's by the same processor, but without breaks between rows; positions
are plain. See `lighton_tower`. What is pruned by default is what is empty (`READING`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from vllm.model_executor.models.lightonocr import (
    LightOnOCRForConditionalGeneration,
    LightOnOCRMultiModalProcessor,
    LightOnOCRProcessingInfo,
)
from vllm.model_executor.models.mistral3 import Mistral3DummyInputsBuilder
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.families.llava import seen
from vllm_pruner.families.merging import READING
from vllm_pruner.families.mistral3 import layout as layout_of_any
from vllm_pruner.families.unsuited import check_shrinking
from vllm_pruner.family import Family
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.tower import EncoderImage
from vllm_pruner.worker.lighton_tower import LightOnTower
from vllm_pruner.worker.model import PrunedModel
from vllm_pruner.worker.thinned import in_token_order

__all__ = ["LIGHTONOCR", "PrunedLightOnOCR"]


def largest(info: Any) -> GridLayout:
    """Return the layout with which vLLM profiles memory; see `Family.largest`."""
    size = info.get_image_size_with_most_features()
    return layout(info, size.height, size.width, {})


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> GridLayout:
    """Return the layout of an image after the processor has resized it; see `Family.layout`.

    Raises:
        ConfigError: the processor would resize it to another size than vLLM counts tokens of.
    """
    counted, made = info.get_vision_encoder_info().get_image_size(), _longest(info, mm_kwargs)
    if made != counted:
        raise ConfigError(
            f"longest_edge of size is {made}; allowed: {counted}, the image_size of the vision "
            "tower, by which vLLM counts this model's tokens"
        )
    return layout_of_any(info, height, width, mm_kwargs)


def _longest(info: Any, mm_kwargs: Mapping[str, object]) -> Any:
    """Return the longest side of an image that the processor makes."""
    own = info.get_hf_processor().image_processor.size
    merged = info.ctx.get_merged_mm_kwargs(mm_kwargs)
    asked = (merged.get("images_kwargs") or {}).get("size") or merged.get("size") or {}
    return asked.get("longest_edge", own["longest_edge"]) if isinstance(asked, Mapping) else asked


def images(hf_config: Any, image_input: Any) -> list[EncoderImage]:
    """Return the images of a batch, their patches in the order of tokens; see `Family.images`."""
    side, merge = hf_config.vision_config.patch_size, hf_config.spatial_merge_size
    return [_cut(pixels, side, merge) for pixels in image_input["pixel_values"]]


def _cut(pixels: torch.Tensor, side: int, merge: int) -> EncoderImage:
    """Return an image of `[3, height, width]`."""
    rows, columns = (pixels.shape[axis] // side for axis in (-2, -1))
    apart = pixels.unflatten(2, (columns, side)).unflatten(1, (rows, side))
    raster = apart.permute(1, 3, 0, 2, 4).flatten(0, 1).flatten(1)
    return EncoderImage(
        in_token_order(raster, rows, columns, merge), GridLayout(rows // merge, columns // merge)
    )


LIGHTONOCR = Family(
    "lightonocr",
    largest,
    layout,
    images,
    LightOnTower,
    seen,
    partial(check_shrinking, smaller="image_size", place="vision_config of config.json"),
    **READING,
)


class PrunedLightOnOCRInfo(PrunedInfo, LightOnOCRProcessingInfo):
    """`LightOnOCRProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = LIGHTONOCR
    mark_words = ("<|vision_start|>", "<|vision_end|>")


class PrunedLightOnOCRProcessor(PrunedProcessor, LightOnOCRMultiModalProcessor):
    """`LightOnOCRMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(
    PrunedLightOnOCRProcessor, info=PrunedLightOnOCRInfo, dummy_inputs=Mistral3DummyInputsBuilder
)
class PrunedLightOnOCR(PrunedModel, LightOnOCRForConditionalGeneration):
    """vLLM's LightOnOCR, keeping the visual tokens that show something; see `PrunedModel`."""

    family = LIGHTONOCR
