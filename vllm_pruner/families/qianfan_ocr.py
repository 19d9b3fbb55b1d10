"""Qianfan-OCR: `QianfanOCRForConditionalGeneration`, InternVL Chat without videos.

Follows `vllm/model_executor/models/qianfan_ocr.py` of vLLM 0.32.
"""

from __future__ import annotations

from dataclasses import replace

from vllm.model_executor.models.internvl import (
    BaseInternVLDummyInputsBuilder,
    BaseInternVLMultiModalProcessor,
)
from vllm.model_executor.models.qianfan_ocr import (
    QianfanOCRForConditionalGeneration,
    QianfanOCRProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.families.internvl_chat import INTERNVL_CHAT, PrunedChatInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.captured_model import CapturedModel

__all__ = ["QIANFAN_OCR", "PrunedQianfanOCR"]

QIANFAN_OCR = replace(INTERNVL_CHAT, name="qianfan_ocr", videos=None)


class PrunedQianfanOCRInfo(PrunedChatInfo, QianfanOCRProcessingInfo):
    """`QianfanOCRProcessingInfo` with settings; see `PrunedChatInfo` for the changes."""

    family = QIANFAN_OCR


class PrunedQianfanOCRProcessor(
    PrunedProcessor, BaseInternVLMultiModalProcessor[PrunedQianfanOCRInfo]
):
    """`BaseInternVLMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedQianfanOCRProcessor,
    info=PrunedQianfanOCRInfo,
    dummy_inputs=BaseInternVLDummyInputsBuilder,
)
class PrunedQianfanOCR(CapturedModel, QianfanOCRForConditionalGeneration):
    """vLLM's Qianfan-OCR with visual-token pruning; see `CapturedModel`."""

    family = QIANFAN_OCR
