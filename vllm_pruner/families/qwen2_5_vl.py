"""Qwen2.5-VL: `Qwen2_5_VLForConditionalGeneration`.

Follows `vllm/model_executor/models/qwen2_5_vl.py` of vLLM 0.32. An image of any resolution is one
grid of tokens, each 2 x 2 patches; see `packed_tower` and `mrope`.
"""

from __future__ import annotations

from dataclasses import replace

from vllm.model_executor.models.qwen2_5_vl import (
    Qwen2_5_VLDummyInputsBuilder,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.families.qwen_grid import QWEN_VIDEOS, qwen_family
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.captured_model import CapturedModel
from vllm_pruner.worker.in_tree import InTreeByWidthModel

__all__ = ["QWEN2_5_VL", "PrunedQwen2_5_VL"]

QWEN2_5_VL = qwen_family("qwen2_5_vl", replace(QWEN_VIDEOS, in_tree=True))


class PrunedQwen2_5_VLInfo(PrunedInfo, Qwen2_5_VLProcessingInfo):  # the model's name
    """`Qwen2_5_VLProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = QWEN2_5_VL


class PrunedQwen2_5_VLProcessor(PrunedProcessor, Qwen2_5_VLMultiModalProcessor):
    """`Qwen2_5_VLMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedQwen2_5_VLProcessor, info=PrunedQwen2_5_VLInfo, dummy_inputs=Qwen2_5_VLDummyInputsBuilder
)
class PrunedQwen2_5_VL(InTreeByWidthModel, CapturedModel, Qwen2_5_VLForConditionalGeneration):
    """vLLM's Qwen2.5-VL with visual-token pruning; see `InTreeByWidthModel` and
    `CapturedModel`."""

    family = QWEN2_5_VL
