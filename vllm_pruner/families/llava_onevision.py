"""LLaVA-OneVision: `LlavaOnevisionForConditionalGeneration`.

Follows `vllm/model_executor/models/llava_onevision.py` of vLLM 0.32. An image is laid out as in
LLaVA-NeXT (`llava_next`), but a raster with more than about nine crops' patches is resampled to
that number: bilinearly, after the projector. A token is then a mixture of projected patches, so all
patches are projected, and scores and keys are interpolated likewise. Each frame of a video is
resampled to about a quarter of its patches (`apply_pooling`, `clip_layout`).
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
from vllm_pruner.family import Family, Videos
from vllm_pruner.layout.clip_layout import ClipLayout
from vllm_pruner.layout.crop_layout import CropLayout
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.tower import EncoderImage
from vllm_pruner.worker.crop_model import CropModel
from vllm_pruner.worker.crop_tower import CropTower, crop_side

__all__ = ["LLAVA_ONEVISION", "PrunedLlavaOnevision"]

_CROPS, _EXCESS = 9, 1.1
"""vLLM's constants, whatever `vision_aspect_ratio` is: the crops that a raster may have, and by
which factor its side may exceed them."""


def layout_of(hf_config: Any, height: int, width: int) -> CropLayout:
    """Return the layout of an image of that size in pixels.

    Follows vLLM's `_get_num_unpadded_features` and `_merge_image_patch_embeddings`.
    """
    whole = llava_next.layout_of(hf_config, height, width)
    rows, columns = whole.raster
    ratio = sqrt(rows * columns / (_CROPS * whole.side**2))
    if ratio <= _EXCESS:
        return whole
    return dataclasses.replace(whole, resampled=(int(rows // ratio), int(columns // ratio)))


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> CropLayout:
    """Return the layout of an image of that size in pixels; see `Family.layout`."""
    return layout_of(info.get_hf_config(), height, width)


def largest(info: Any) -> CropLayout:
    """Return the layout with the most tokens; see `Family.largest`."""
    hf_config = info.get_hf_config()
    llava_next.check_crops(hf_config)
    return layout_of(hf_config, *_extremes(hf_config)[0])


def _extremes(hf_config: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return height and width of a picture with the most tokens, and of one with the most crops."""
    tower = hf_config.vision_config
    pinpoints = tuple((high, wide) for high, wide in hf_config.image_grid_pinpoints)
    return _extremes_of(pinpoints, tower.image_size, tower.patch_size)


@cache
def _extremes_of(
    pinpoints: tuple[tuple[int, int], ...], image: int, patch: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Search pictures that just fit a grid: as wide as the grid with every number of rows, and as
    high as the grid with every number of columns. A grid that none of them gets, no picture gets.
    """
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


def video_layout(hf_config: Any, item: Mapping[str, Any]) -> ClipLayout:
    """Return the layout of a processed video; see `Videos.item_layout`."""
    return ClipLayout(len(item["pixel_values_videos"]), crop_side(hf_config))


def videos(hf_config: Any, video_input: Any) -> list[EncoderImage]:
    """Return the videos of a batch; see `Videos.items`."""
    side = crop_side(hf_config)
    return [
        EncoderImage(frames, ClipLayout(len(frames), side))
        for frames in video_input["pixel_values_videos"]
    ]


LLAVA_ONEVISION = Family(
    "llava_onevision",
    largest,
    layout,
    partial(llava_next.images, layout_of=layout_of),
    CropTower,
    seen,
    llava_next.check_method,
    captured=True,
    videos=Videos(video_layout, videos, token="video_token_index"),
)


class PrunedLlavaOnevisionInfo(PrunedInfo, LlavaOnevisionProcessingInfo):
    """`LlavaOnevisionProcessingInfo` with settings; see `PrunedInfo` for the changes.

    Own changes:
    - memory is profiled with a picture of the most crops, for which the tower needs the most. It
      does not have the most tokens; budgets are computed from a picture that does;
    - the token counts include those of videos; without them vLLM would not profile with videos.
    """

    family = LLAVA_ONEVISION

    def get_image_size_with_most_features(self) -> ImageSize:
        height, width = _extremes(self.get_hf_config())[1]
        return ImageSize(width=width, height=height)

    def get_mm_max_tokens_per_item(
        self, seq_len: int, mm_counts: Mapping[str, int]
    ) -> Mapping[str, int]:
        tokens = super().get_mm_max_tokens_per_item(seq_len, mm_counts)
        return {**tokens, "video": self.get_max_video_tokens(seq_len, mm_counts)}


class PrunedLlavaOnevisionProcessor(PrunedProcessor, LlavaOnevisionMultiModalProcessor):
    """`LlavaOnevisionMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedLlavaOnevisionProcessor,
    info=PrunedLlavaOnevisionInfo,
    dummy_inputs=LlavaOnevisionDummyInputsBuilder,
)
class PrunedLlavaOnevision(CropModel, LlavaOnevisionForConditionalGeneration):
    """vLLM's LLaVA-OneVision with visual-token pruning; see `CropModel`.

    Own changes: crops that only pad an image to the largest of its batch are not encoded.
    """

    family = LLAVA_ONEVISION
