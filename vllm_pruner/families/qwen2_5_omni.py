"""Qwen2.5-Omni: `Qwen2_5OmniModel` and `Qwen2_5OmniForConditionalGeneration`, of which vLLM serves
the thinker.

Follows `vllm/model_executor/models/qwen2_5_omni_thinker.py` of vLLM 0.32. The tower is
Qwen2.5-VL's; see `omni`, `packed_tower` and `mrope`.
"""

from __future__ import annotations

from typing import Any

from vllm.model_executor.models.qwen2_5_omni_thinker import (
    Qwen2_5OmniThinkerDummyInputsBuilder,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2_5OmniThinkerMultiModalProcessor,
    Qwen2_5OmniThinkerProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.families.omni import OmniModel, OmniProcessor, omni_family
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.worker.packed_tower import PackedTower

__all__ = ["QWEN2_5_OMNI", "PrunedQwen2_5Omni"]


def pace(hf_config: Any, seconds: float | None) -> float:
    """Return the temporal positions of a frame; see `Pace`. The numbers are vLLM's."""
    each = 1.0 if seconds is None else seconds
    return each * float(getattr(hf_config.vision_config, "tokens_per_second", 25))


QWEN2_5_OMNI = omni_family("qwen2_5_omni", PackedTower, pace)


class PrunedQwen2_5OmniInfo(  # type: ignore[misc]  # vLLM always says how many items there are
    PrunedInfo, Qwen2_5OmniThinkerProcessingInfo
):
    """`Qwen2_5OmniThinkerProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = QWEN2_5_OMNI
    mark_words = (
        *("<|vision_bos|>", "<|vision_eos|>"),
        *("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"),
    )


class PrunedQwen2_5OmniProcessor(OmniProcessor, Qwen2_5OmniThinkerMultiModalProcessor):
    """`Qwen2_5OmniThinkerMultiModalProcessor` with fewer placeholders; see `OmniProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedQwen2_5OmniProcessor,
    info=PrunedQwen2_5OmniInfo,
    dummy_inputs=Qwen2_5OmniThinkerDummyInputsBuilder,
)
class PrunedQwen2_5Omni(OmniModel, Qwen2_5OmniThinkerForConditionalGeneration):
    """vLLM's Qwen2.5-Omni with visual-token pruning; see `OmniModel`."""

    family = QWEN2_5_OMNI
