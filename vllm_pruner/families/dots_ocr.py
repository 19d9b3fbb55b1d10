"""dots.ocr: `DotsOCRForCausalLM`, which reads documents.

Follows `vllm/model_executor/models/dots_ocr.py` of vLLM 0.32. An image of any resolution is one
grid of tokens, as Qwen2-VL's, by the same processors; see `qwen_grid` and `dots_tower`. Positions
are plain. What is pruned by default is what is empty (`READING`).
"""

from __future__ import annotations

from vllm.model_executor.models.dots_ocr import (
    DotsOCRDummyInputsBuilder,
    DotsOCRForCausalLM,
    DotsOCRProcessingInfo,
)
from vllm.model_executor.models.qwen2_vl import Qwen2VLMultiModalProcessor
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.families.merging import READING
from vllm_pruner.families.qwen_grid import images, largest, layout, seen
from vllm_pruner.families.unsuited import check_shrinking
from vllm_pruner.family import Family
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.dots_tower import DotsTower
from vllm_pruner.worker.model import PrunedModel

__all__ = ["DOTS_OCR", "PrunedDotsOCR"]

DOTS_OCR = Family("dots_ocr", largest, layout, images, DotsTower, seen, check_shrinking, **READING)


class PrunedDotsOCRInfo(PrunedInfo, DotsOCRProcessingInfo):
    """`DotsOCRProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = DOTS_OCR
    mark_words = ("<|img|>", "<|endofimg|>")


class PrunedDotsOCRProcessor(PrunedProcessor, Qwen2VLMultiModalProcessor):
    """`Qwen2VLMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedDotsOCRProcessor, info=PrunedDotsOCRInfo, dummy_inputs=DotsOCRDummyInputsBuilder
)
class PrunedDotsOCR(PrunedModel, DotsOCRForCausalLM):
    """vLLM's dots.ocr, keeping the visual tokens that show something; see `PrunedModel`."""

    family = DOTS_OCR
