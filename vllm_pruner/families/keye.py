"""Keye-VL: `KeyeForConditionalGeneration` and, of 1.5, `KeyeVL1_5ForConditionalGeneration`.

Follows `vllm/model_executor/models/keye.py` and `keye_vl1_5.py` of vLLM 0.32. An image of any
resolution is one grid of tokens, each 2 x 2 patches, which its processor has in raster order; see
`keye_tower` and `mrope`. Videos are left whole: frames of one run in the first, in 1.5 each with
its time in front, whose positions begin anew with every frame.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from vllm.model_executor.models.keye import (
    KeyeDummyInputsBuilder,
    KeyeForConditionalGeneration,
    KeyeMultiModalProcessor,
    KeyeProcessingInfo,
    smart_resize,
)
from vllm.model_executor.models.keye_vl1_5 import (
    KeyeVL1_5DummyInputsBuilder,
    KeyeVL1_5ForConditionalGeneration,
    KeyeVL1_5MultiModalProcessor,
    KeyeVL1_5ProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.parse import ImageSize

from vllm_pruner.families.merging import MERGING
from vllm_pruner.families.qwen_grid import item_layout
from vllm_pruner.families.siglip_grid import images, largest, layout_by, seen, size_of
from vllm_pruner.families.unsuited import check_shrinking
from vllm_pruner.family import Family
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.keye_tower import Keye1_5Tower, KeyeTower
from vllm_pruner.worker.mrope import MRopeModel

__all__ = ["KEYE", "KEYE1_5", "PrunedKeye", "PrunedKeye1_5"]


# vLLM's own classes disagree about `make_empty_intermediate_tensors` with a base of theirs: `misc`.


def _family(name: str, tower: Any) -> Family:
    return Family(
        name,
        largest,
        partial(layout_by, smart_resize),
        images,
        tower,
        seen,
        partial(check_shrinking, smaller="max_pixels"),
        item_layout=item_layout,
        encodes_some=True,
        marks=("vision_start_token_id", "vision_end_token_id"),
        **MERGING,
    )


KEYE, KEYE1_5 = _family("keye", KeyeTower), _family("keye_vl1_5", Keye1_5Tower)


class _Info(PrunedInfo):
    """Own change: vLLM's dummy images have the `largest` layout, not a square's."""

    def get_image_size_with_most_features(self) -> ImageSize:
        return size_of(self, largest(self))


class PrunedKeyeInfo(_Info, KeyeProcessingInfo):
    """`KeyeProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = KEYE


class PrunedKeye1_5Info(_Info, KeyeVL1_5ProcessingInfo):
    """`KeyeVL1_5ProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = KEYE1_5


class PrunedKeyeProcessor(PrunedProcessor, KeyeMultiModalProcessor):
    """`KeyeMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


class PrunedKeye1_5Processor(PrunedProcessor, KeyeVL1_5MultiModalProcessor):
    """`KeyeVL1_5MultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedKeyeProcessor, info=PrunedKeyeInfo, dummy_inputs=KeyeDummyInputsBuilder
)
class PrunedKeye(MRopeModel, KeyeForConditionalGeneration):  # type: ignore[misc]
    """vLLM's Keye-VL with visual-token pruning; see `MRopeModel`."""

    family = KEYE


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedKeye1_5Processor, info=PrunedKeye1_5Info, dummy_inputs=KeyeVL1_5DummyInputsBuilder
)
class PrunedKeye1_5(MRopeModel, KeyeVL1_5ForConditionalGeneration):  # type: ignore[misc]
    """vLLM's Keye-VL 1.5 with visual-token pruning; see `MRopeModel`."""

    family = KEYE1_5
