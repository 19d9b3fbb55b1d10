"""Qwen2-VL: `Qwen2VLForConditionalGeneration`.

Follows `vllm/model_executor/models/qwen2_vl.py` of vLLM 0.32. An image of any resolution is one
grid of tokens, each 2 x 2 patches; see `packed_tower` and `mrope`.
"""

from __future__ import annotations

from vllm.model_executor.models.qwen2_vl import (
    Qwen2VLDummyInputsBuilder,
    Qwen2VLForConditionalGeneration,
    Qwen2VLMultiModalProcessor,
    Qwen2VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.families.qwen_grid import QWEN_VIDEOS, qwen_family
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.captured_model import CapturedModel
from vllm_pruner.worker.mrope import MRopeModel

__all__ = ["QWEN2_VL", "PrunedQwen2VL"]

QWEN2_VL = qwen_family("qwen2_vl", QWEN_VIDEOS)


class PrunedQwen2VLInfo(PrunedInfo, Qwen2VLProcessingInfo):
    """`Qwen2VLProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = QWEN2_VL


class PrunedQwen2VLProcessor(PrunedProcessor, Qwen2VLMultiModalProcessor):
    """`Qwen2VLMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedQwen2VLProcessor, info=PrunedQwen2VLInfo, dummy_inputs=Qwen2VLDummyInputsBuilder
)
class PrunedQwen2VL(MRopeModel, CapturedModel, Qwen2VLForConditionalGeneration):
    """vLLM's Qwen2-VL with visual-token pruning; see `MRopeModel` and `CapturedModel`."""

    family = QWEN2_VL
