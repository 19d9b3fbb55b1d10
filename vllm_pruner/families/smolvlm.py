"""SmolVLM and SmolVLM2: `SmolVLMForConditionalGeneration`, Idefics3 with another processor.

Follows `vllm/model_executor/models/smolvlm.py` of vLLM 0.32, which does not support videos.
"""

from __future__ import annotations

import dataclasses

from vllm.model_executor.models.idefics3 import Idefics3DummyInputsBuilder
from vllm.model_executor.models.smolvlm import (
    SmolVLMForConditionalGeneration,
    SmolVLMProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.families.idefics3 import (
    IDEFICS3,
    PrunedIdefics3,
    PrunedIdefics3Info,
    PrunedIdefics3Processor,
)

__all__ = ["SMOLVLM", "PrunedSmolVLM"]

SMOLVLM = dataclasses.replace(IDEFICS3, name="smolvlm")


class PrunedSmolVLMInfo(PrunedIdefics3Info, SmolVLMProcessingInfo):
    """`SmolVLMProcessingInfo` with settings; see `PrunedIdefics3Info` for the changes."""

    family = SMOLVLM


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # as in idefics3
    PrunedIdefics3Processor, info=PrunedSmolVLMInfo, dummy_inputs=Idefics3DummyInputsBuilder
)
class PrunedSmolVLM(PrunedIdefics3, SmolVLMForConditionalGeneration):  # type: ignore[misc]
    """vLLM's SmolVLM with visual-token pruning; see `PrunedIdefics3`."""

    family = SMOLVLM
