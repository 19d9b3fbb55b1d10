"""Qwen3-VL: `Qwen3VLForConditionalGeneration` and, as a mixture of experts,
`Qwen3VLMoeForConditionalGeneration`.

Follows `vllm/model_executor/models/qwen3_vl.py` and `qwen3_vl_moe.py` of vLLM 0.32. An image of any
resolution is one grid of tokens, each 2 x 2 patches with DeepStack's levels appended; see
`packed_tower` and `mrope`.
"""

from __future__ import annotations

from dataclasses import replace

from vllm.model_executor.models.qwen3_vl import (
    Qwen3VLDummyInputsBuilder,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMultiModalProcessor,
    Qwen3VLProcessingInfo,
)
from vllm.model_executor.models.qwen3_vl_moe import (
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLMoeProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.families.qwen_grid import QWEN3_VIDEOS, qwen_family
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.captured_model import CapturedModel
from vllm_pruner.worker.in_tree import InTreeModel

__all__ = ["QWEN3_VL", "PrunedQwen3VL", "PrunedQwen3VLMoe"]

QWEN3_VL = qwen_family("qwen3_vl", replace(QWEN3_VIDEOS, in_tree=True))


class PrunedQwen3VLInfo(PrunedInfo, Qwen3VLProcessingInfo):
    """`Qwen3VLProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = QWEN3_VL


class PrunedQwen3VLMoeInfo(PrunedInfo, Qwen3VLMoeProcessingInfo):
    """`Qwen3VLMoeProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = QWEN3_VL


class PrunedQwen3VLProcessor(PrunedProcessor, Qwen3VLMultiModalProcessor):
    """`Qwen3VLMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedQwen3VLProcessor, info=PrunedQwen3VLInfo, dummy_inputs=Qwen3VLDummyInputsBuilder
)
class PrunedQwen3VL(InTreeModel, CapturedModel, Qwen3VLForConditionalGeneration):
    """vLLM's Qwen3-VL with visual-token pruning; see `InTreeModel` and `CapturedModel`."""

    family = QWEN3_VL


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedQwen3VLProcessor, info=PrunedQwen3VLMoeInfo, dummy_inputs=Qwen3VLDummyInputsBuilder
)
class PrunedQwen3VLMoe(InTreeModel, CapturedModel, Qwen3VLMoeForConditionalGeneration):
    """vLLM's Qwen3-VL MoE with visual-token pruning; see `InTreeModel` and `CapturedModel`."""

    family = QWEN3_VL
