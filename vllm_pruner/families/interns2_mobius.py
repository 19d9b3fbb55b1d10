"""Intern-S2-Mobius: `InternS2MobiusForConditionalGeneration`, Intern-S2-Preview whose layers share
banks of experts.

Follows `vllm/model_executor/models/interns2_mobius.py` of vLLM 0.32. Configuration and processor
are the checkpoint's own.
"""

from __future__ import annotations

from vllm.model_executor.models.interns2_mobius import (
    InternS2MobiusForConditionalGeneration,
    InternS2MobiusProcessingInfo,
)
from vllm.model_executor.models.qwen3_vl import Qwen3VLDummyInputsBuilder
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.families.qwen3_vl import PrunedQwen3VLProcessor
from vllm_pruner.families.qwen_grid import QWEN3_VIDEOS, qwen_family
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.worker.captured_model import CapturedModel
from vllm_pruner.worker.mrope import MRopeModel

__all__ = ["INTERNS2_MOBIUS", "PrunedInternS2Mobius"]

INTERNS2_MOBIUS = qwen_family("interns2_mobius", QWEN3_VIDEOS)


class PrunedInternS2MobiusInfo(PrunedInfo, InternS2MobiusProcessingInfo):
    """`InternS2MobiusProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = INTERNS2_MOBIUS


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedQwen3VLProcessor, info=PrunedInternS2MobiusInfo, dummy_inputs=Qwen3VLDummyInputsBuilder
)
class PrunedInternS2Mobius(MRopeModel, CapturedModel, InternS2MobiusForConditionalGeneration):
    """vLLM's Intern-S2-Mobius with visual-token pruning; see `MRopeModel` and `CapturedModel`."""

    family = INTERNS2_MOBIUS
