"""Skywork R1V: `SkyworkR1VChatModel`, InternVL Chat without videos.

Follows `vllm/model_executor/models/skyworkr1v.py` of vLLM 0.32, which has InternVL's tower and
processor but a class of its own, without CUDA graphs of the tower.
"""

from __future__ import annotations

from dataclasses import replace

from vllm.model_executor.models.internvl import (
    BaseInternVLDummyInputsBuilder,
    BaseInternVLMultiModalProcessor,
)
from vllm.model_executor.models.skyworkr1v import SkyworkR1VChatModel, SkyworkR1VProcessingInfo
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.families.internvl_chat import INTERNVL_CHAT, PrunedChatInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.captured_model import CapturedModel

__all__ = ["SKYWORK_R1V", "PrunedSkyworkR1V"]

SKYWORK_R1V = replace(INTERNVL_CHAT, name="skywork_r1v", videos=None, stock_captured=False)


class PrunedSkyworkR1VInfo(PrunedChatInfo, SkyworkR1VProcessingInfo):
    """`SkyworkR1VProcessingInfo` with settings; see `PrunedChatInfo` for the changes."""

    family = SKYWORK_R1V


class PrunedSkyworkR1VProcessor(
    PrunedProcessor, BaseInternVLMultiModalProcessor[PrunedSkyworkR1VInfo]
):
    """`BaseInternVLMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedSkyworkR1VProcessor,
    info=PrunedSkyworkR1VInfo,
    dummy_inputs=BaseInternVLDummyInputsBuilder,
)
class PrunedSkyworkR1V(CapturedModel, SkyworkR1VChatModel):
    """vLLM's Skywork R1V with visual-token pruning; see `CapturedModel`."""

    family = SKYWORK_R1V
