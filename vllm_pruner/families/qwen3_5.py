"""Qwen3.5: `Qwen3_5ForConditionalGeneration` and, as a mixture of experts,
`Qwen3_5MoeForConditionalGeneration`.

Follows `vllm/model_executor/models/qwen3_5.py` of vLLM 0.32. The tower is Qwen3-VL's without
DeepStack. Most layers of the decoder have linear attention, whose state depends only on the tokens
fed, that is, on kept tokens; positions matter to the other layers, see `mrope`.
"""

from __future__ import annotations

from vllm.model_executor.models.qwen3_5 import (
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3_5MoeProcessingInfo,
    Qwen3_5ProcessingInfo,
)
from vllm.model_executor.models.qwen3_vl import (
    Qwen3VLDummyInputsBuilder,
    Qwen3VLMultiModalProcessor,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.families.qwen_grid import QWEN3_VIDEOS, qwen_family
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.captured_model import CapturedModel
from vllm_pruner.worker.mrope import MRopeModel

__all__ = ["QWEN3_5", "PrunedQwen3_5", "PrunedQwen3_5Moe"]

QWEN3_5 = qwen_family("qwen3_5", QWEN3_VIDEOS)


class PrunedQwen3_5Info(PrunedInfo, Qwen3_5ProcessingInfo):  # the model's name
    """`Qwen3_5ProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = QWEN3_5


class PrunedQwen3_5MoeInfo(PrunedInfo, Qwen3_5MoeProcessingInfo):
    """`Qwen3_5MoeProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = QWEN3_5


class PrunedQwen3_5Processor(PrunedProcessor, Qwen3VLMultiModalProcessor):
    """`Qwen3VLMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedQwen3_5Processor, info=PrunedQwen3_5Info, dummy_inputs=Qwen3VLDummyInputsBuilder
)
class PrunedQwen3_5(MRopeModel, CapturedModel, Qwen3_5ForConditionalGeneration):
    """vLLM's Qwen3.5 with visual-token pruning; see `MRopeModel` and `CapturedModel`."""

    family = QWEN3_5


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedQwen3_5Processor, info=PrunedQwen3_5MoeInfo, dummy_inputs=Qwen3VLDummyInputsBuilder
)
class PrunedQwen3_5Moe(MRopeModel, CapturedModel, Qwen3_5MoeForConditionalGeneration):
    """vLLM's Qwen3.5 MoE with visual-token pruning; see `MRopeModel` and `CapturedModel`."""

    family = QWEN3_5
