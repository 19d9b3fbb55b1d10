"""Intern-S2-Preview: `InternS2PreviewForConditionalGeneration`, Qwen3.5 of experts.

Follows `vllm/model_executor/models/interns2_preview.py` of vLLM 0.32, which leaves the weights for
time series out; configuration and processor are the checkpoint's own.
"""

from __future__ import annotations

from vllm.model_executor.models.interns2_preview import (
    InternS2PreviewForConditionalGeneration,
    InternS2PreviewProcessingInfo,
)
from vllm.model_executor.models.qwen3_vl import Qwen3VLDummyInputsBuilder
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.families.qwen3_vl import PrunedQwen3VLProcessor
from vllm_pruner.families.qwen_grid import QWEN3_VIDEOS, qwen_family
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.worker.captured_model import CapturedModel
from vllm_pruner.worker.mrope import MRopeModel

__all__ = ["INTERNS2_PREVIEW", "PrunedInternS2Preview"]

INTERNS2_PREVIEW = qwen_family("interns2_preview", QWEN3_VIDEOS)


class PrunedInternS2PreviewInfo(PrunedInfo, InternS2PreviewProcessingInfo):
    """`InternS2PreviewProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = INTERNS2_PREVIEW


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedQwen3VLProcessor, info=PrunedInternS2PreviewInfo, dummy_inputs=Qwen3VLDummyInputsBuilder
)
class PrunedInternS2Preview(MRopeModel, CapturedModel, InternS2PreviewForConditionalGeneration):
    """vLLM's Intern-S2-Preview with visual-token pruning; see `MRopeModel` and `CapturedModel`."""

    family = INTERNS2_PREVIEW
