"""LLaVA-OneVision: `LlavaOnevisionForConditionalGeneration`.

Follows `vllm/model_executor/models/llava_onevision.py` of vLLM 0.32. An image is laid out as
LLaVA-NeXT's (`llava_next`), but a raster of many more patches than nine crops have is resampled to
about as many as nine: bilinearly, after the projector. Then a token is a mixture of projected
patches, so all of them are projected; what methods look at is mixed in the same proportions. Videos
are served unpruned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache, partial
from math import sqrt
from types import SimpleNamespace
from typing import Any

from vllm.model_executor.models.llava_onevision import (
    LlavaOnevisionDummyInputsBuilder,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionMultiModalProcessor,
    LlavaOnevisionProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.parse import ImageSize

from vllm_pruner.families import llava_next
from vllm_pruner.families.llava import seen
from vllm_pruner.family import Family
from vllm_pruner.layout.crop_layout import CropLayout
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.captured_model import CapturedModel
from vllm_pruner.worker.crop_tower import CropTower

__all__ = ["LLAVA_ONEVISION", "PrunedLlavaOnevision"]

_CROPS, _EXCESS = 9, 1.1
"""vLLM's, whatever `vision_aspect_ratio` says: what a raster may have, and how far its side may
exceed that."""


def layout_of(hf_config: Any, height: int, width: int) -> CropLayout:
    """Return the layout of an image of that many pixels.

    As vLLM's `_get_num_unpadded_features` counts, and `_merge_image_patch_embeddings` resamples.
    """
    whole = llava_next.layout_of(hf_config, height, width)
    rows, columns = whole.raster
    ratio = sqrt(rows * columns / (_CROPS * whole.side**2))
    if ratio <= _EXCESS:
        return whole
    return dataclasses.replace(whole, resampled=(int(rows // ratio), int(columns // ratio)))


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> CropLayout:
    """Return the layout of an image of that many pixels; see `Family.layout`."""
    return layout_of(info.get_hf_config(), height, width)


def largest(info: Any) -> CropLayout:
    """Return the layout of a picture with most tokens; see `Family.largest`."""
    hf_config = info.get_hf_config()
    llava_next.check_crops(hf_config)
    return layout_of(hf_config, *_extremes(hf_config)[0])


def _extremes(hf_config: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return height and width of a picture with most tokens, and of one with most crops."""
    tower = hf_config.vision_config
    pinpoints = tuple((high, wide) for high, wide in hf_config.image_grid_pinpoints)
    return _extremes_of(pinpoints, tower.image_size, tower.patch_size)


@cache
def _extremes_of(
    pinpoints: tuple[tuple[int, int], ...], image: int, patch: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Look for them among pictures that just fit into a grid: as wide as the grid and of every
    number of rows, and the other way round. If no such picture takes a grid, none does."""
    side = image // patch
    tower = SimpleNamespace(image_size=image, patch_size=patch)
    config = SimpleNamespace(vision_config=tower, image_grid_pinpoints=[[*p] for p in pinpoints])
    found = {
        size: layout_of(config, *size)
        for high, wide in pinpoints
        for size in (
            *((-(-row * image // side), wide) for row in range(1, high // image * side + 1)),
            *((high, -(-column * image // side)) for column in range(1, wide // image * side + 1)),
        )
    }
    tokens = max(found, key=lambda size: found[size].tokens)
    return tokens, max(found, key=lambda size: (found[size].crops, found[size].tokens))


LLAVA_ONEVISION = Family(
    "llava_onevision",
    largest,
    layout,
    partial(llava_next.images, layout_of=layout_of),
    CropTower,
    seen,
    llava_next.check_method,
    captured=True,
)


class PrunedLlavaOnevisionInfo(PrunedInfo, LlavaOnevisionProcessingInfo):
    """`LlavaOnevisionProcessingInfo` with settings; see `PrunedInfo` for the changes.

    Change of its own: memory is profiled with a picture of most crops, which the tower needs most
    for. Of all pictures it has not the most tokens, but the budget is of those that have.
    """

    family = LLAVA_ONEVISION

    def get_image_size_with_most_features(self) -> ImageSize:
        height, width = _extremes(self.get_hf_config())[1]
        return ImageSize(width=width, height=height)


class PrunedLlavaOnevisionProcessor(PrunedProcessor, LlavaOnevisionMultiModalProcessor):
    """`LlavaOnevisionMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedLlavaOnevisionProcessor,
    info=PrunedLlavaOnevisionInfo,
    dummy_inputs=LlavaOnevisionDummyInputsBuilder,
)
class PrunedLlavaOnevision(CapturedModel, LlavaOnevisionForConditionalGeneration):
    """vLLM's LLaVA-OneVision, keeping the visual tokens that matter; see `CapturedModel`.

    Changes of its own: crops that only pad an image to the largest of its batch are not encoded.
    """

    family = LLAVA_ONEVISION
