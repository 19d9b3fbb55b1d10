"""LFM2-VL and LFM2.5-VL: `Lfm2VlForConditionalGeneration`.

Follows `vllm/model_executor/models/lfm2_vl.py` of vLLM 0.32. An image is one grid of tokens, or
tiles and the whole picture behind them; see `lfm2_tiles` and `siglip2_tower`. The prompt, which is
built before the tower runs, names every tile (`<|img_row_1_col_2|>`). So each tile has a fixed
share of the budget; `crop_budget` "joint" acts as "per_crop" here. Positions are plain.

Most layers of the decoder are short convolutions, which mix a token with the two before it: tokens
that are kept become neighbours.
"""

from __future__ import annotations

from functools import cached_property

from vllm.model_executor.models.lfm2_vl import (
    Lfm2VLDummyInputsBuilder,
    Lfm2VLForConditionalGeneration,
    Lfm2VLMultiModalProcessor,
    Lfm2VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.parse import ImageSize

from vllm_pruner.families.lfm2_tiles import images, largest, layout, seen, size_with_most
from vllm_pruner.families.merging import MERGING
from vllm_pruner.families.unsuited import check_one_grid
from vllm_pruner.family import Family
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.replayed_model import ReplayedModel
from vllm_pruner.worker.siglip2_tower import Siglip2Tower

__all__ = ["LFM2_VL", "PrunedLfm2VL"]

LFM2_VL = Family(
    "lfm2_vl",
    largest,
    layout,
    images,
    Siglip2Tower,
    seen,
    check_one_grid,
    stock_captured=True,
    **MERGING,
)


class PrunedLfm2VLInfo(PrunedInfo, Lfm2VLProcessingInfo):
    """`Lfm2VLProcessingInfo` with settings; see `PrunedInfo` for the changes.

    Own change: vLLM's dummy images, which have no tiles otherwise, have most tokens.
    """

    family = LFM2_VL

    @cached_property
    def _size_with_most(self) -> tuple[int, int]:
        return size_with_most(self)

    def get_image_size_with_most_features(self) -> ImageSize:
        """Return the size of the `largest` layout."""
        height, width = self._size_with_most
        return ImageSize(width=width, height=height)


class PrunedLfm2VLProcessor(PrunedProcessor, Lfm2VLMultiModalProcessor):  # type: ignore[misc]
    """`Lfm2VLMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedLfm2VLProcessor, info=PrunedLfm2VLInfo, dummy_inputs=Lfm2VLDummyInputsBuilder
)
class PrunedLfm2VL(ReplayedModel, Lfm2VLForConditionalGeneration):
    """vLLM's LFM2-VL with visual-token pruning; see `ReplayedModel`."""

    family = LFM2_VL
