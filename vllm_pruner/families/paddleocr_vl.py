"""PaddleOCR-VL: `PaddleOCRVLForConditionalGeneration`, which reads documents.

Follows `vllm/model_executor/models/paddleocr_vl.py` of vLLM 0.32. An image of any resolution is one
grid of tokens, each 2 x 2 patches, which its processor has in raster order; see `paddle_tower` and
`mrope`. What is pruned by default is what is empty (`READING`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from vllm.model_executor.models.paddleocr_vl import (
    PaddleOCRVLDummyInputsBuilder,
    PaddleOCRVLForConditionalGeneration,
    PaddleOCRVLMultiModalProcessor,
    PaddleOCRVLProcessingInfo,
    smart_resize,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.parse import ImageSize

from vllm_pruner.families.merging import READING
from vllm_pruner.families.qwen_grid import item_layout
from vllm_pruner.families.siglip_grid import images, largest, layout_by, seen, size_of
from vllm_pruner.families.unsuited import check_shrinking
from vllm_pruner.family import Family
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.mrope import MRopeModel
from vllm_pruner.worker.paddle_tower import PaddleTower

__all__ = ["PADDLEOCR_VL", "PrunedPaddleOCRVL"]

layout = partial(layout_by, smart_resize)
"""See `Family.layout`."""

PADDLEOCR_VL = Family(
    "paddleocr_vl",
    largest,
    layout,
    images,
    PaddleTower,
    seen,
    partial(check_shrinking, smaller="max_pixels"),
    item_layout=item_layout,
    **READING,
)


class PrunedPaddleOCRVLInfo(PrunedInfo, PaddleOCRVLProcessingInfo):
    """`PaddleOCRVLProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = PADDLEOCR_VL
    mark_words = ("<|IMAGE_START|>", "<|IMAGE_END|>")

    def get_num_image_tokens(
        self,
        *,
        image_width: int,
        image_height: int,
        image_processor: Any,
        mm_kwargs: Mapping[str, object],
    ) -> int:
        """Return as many as the `layout` has: vLLM takes the names of a size's bounds from whether
        the checkpoint's code is trusted, not from the processor that there is."""
        return layout(self, image_height, image_width, mm_kwargs).tokens

    def get_image_size_with_most_features(self) -> ImageSize:
        """Return the size of vLLM's dummy images, which has the `largest` layout."""
        return size_of(self, largest(self))


class PrunedPaddleOCRVLProcessor(PrunedProcessor, PaddleOCRVLMultiModalProcessor):
    """`PaddleOCRVLMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedPaddleOCRVLProcessor,
    info=PrunedPaddleOCRVLInfo,
    dummy_inputs=PaddleOCRVLDummyInputsBuilder,
)
class PrunedPaddleOCRVL(MRopeModel, PaddleOCRVLForConditionalGeneration):
    """vLLM's PaddleOCR-VL, keeping the visual tokens that show something; see `MRopeModel`."""

    family = PADDLEOCR_VL
