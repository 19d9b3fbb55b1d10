"""EXAONE 4.5: `Exaone4_5_ForConditionalGeneration`, Qwen2.5-VL's tower with grouped keys before
EXAONE 4's decoder.

Follows `vllm/model_executor/models/exaone4_5.py` of vLLM 0.32. Positions are plain.
"""

from __future__ import annotations

from vllm.model_executor.models.exaone4_5 import (
    Exaone4_5_ForConditionalGeneration,
    Exaone4_5_ProcessingInfo,
)
from vllm.model_executor.models.qwen2_vl import (
    Qwen2VLDummyInputsBuilder,
    Qwen2VLMultiModalProcessor,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.families.qwen_grid import QWEN_VIDEOS, plain_family
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.captured_model import CapturedModel

__all__ = ["EXAONE4_5", "PrunedExaone4_5"]

EXAONE4_5 = plain_family("exaone4_5", QWEN_VIDEOS, marks=())


class PrunedExaone4_5Info(PrunedInfo, Exaone4_5_ProcessingInfo):  # the model's name
    """`Exaone4_5_ProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = EXAONE4_5
    mark_words = ("<vision>", "</vision>")


class PrunedExaone4_5Processor(PrunedProcessor, Qwen2VLMultiModalProcessor):
    """`Qwen2VLMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedExaone4_5Processor, info=PrunedExaone4_5Info, dummy_inputs=Qwen2VLDummyInputsBuilder
)
class PrunedExaone4_5(CapturedModel, Exaone4_5_ForConditionalGeneration):
    """vLLM's EXAONE 4.5 with visual-token pruning; see `CapturedModel`."""

    family = EXAONE4_5
