"""Kimi-VL: `KimiVLForConditionalGeneration`.

Follows `vllm/model_executor/models/kimi_vl.py` of vLLM 0.32. An image of any resolution is one grid
of tokens, each 2 x 2 patches; see `kimi_grid` and `moon_tower`. Positions are plain, and one run of
placeholders stands between the marks of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from vllm.config.multimodal import MultiModalDummyOptions
from vllm.inputs import MultiModalDataDict
from vllm.model_executor.models.kimi_vl import (
    KimiVLDummyInputsBuilder,
    KimiVLForConditionalGeneration,
    KimiVLMultiModalProcessor,
    KimiVLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.parse import ImageSize

from vllm_pruner.families.kimi_grid import images, largest, largest_size, layout, seen
from vllm_pruner.families.merging import MERGING
from vllm_pruner.families.unsuited import check_shrinking
from vllm_pruner.family import Family
from vllm_pruner.prompt.dummy_images import largest_images
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.moon_tower import MoonTower
from vllm_pruner.worker.replayed_model import ReplayedModel

__all__ = ["KIMI_VL", "PrunedKimiVL"]

KIMI_VL = Family(
    "kimi_vl",
    largest,
    layout,
    images,
    MoonTower,
    seen,
    partial(check_shrinking, smaller="in_token_limit"),
    stock_captured=True,
    **MERGING,
)


class PrunedKimiVLInfo(PrunedInfo, KimiVLProcessingInfo):
    """`KimiVLProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = KIMI_VL
    mark_words = ("<|media_start|>", "<|media_content|>", "<|media_end|>")

    @property
    def image_token(self) -> int:
        return int(self.image_token_id)

    def get_image_size_with_most_features(self) -> ImageSize:
        """Return the size of the `largest` layout."""
        height, width = largest_size(self)
        return ImageSize(width=width, height=height)


class PrunedKimiVLDummyInputs(KimiVLDummyInputsBuilder):
    """`KimiVLDummyInputsBuilder` with images of most tokens: vLLM's square has fewer."""

    info: PrunedKimiVLInfo

    def get_dummy_mm_data(
        self, seq_len: int, mm_counts: Mapping[str, int], mm_options: MultiModalDummyOptions
    ) -> MultiModalDataDict:
        return {"image": largest_images(self, mm_counts, mm_options)}


class PrunedKimiVLProcessor(PrunedProcessor, KimiVLMultiModalProcessor):
    """`KimiVLMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedKimiVLProcessor, info=PrunedKimiVLInfo, dummy_inputs=PrunedKimiVLDummyInputs
)
class PrunedKimiVL(ReplayedModel, KimiVLForConditionalGeneration):
    """vLLM's Kimi-VL, keeping the visual tokens that matter; see `ReplayedModel`."""

    family = KIMI_VL
