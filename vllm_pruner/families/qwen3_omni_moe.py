"""Qwen3-Omni: `Qwen3OmniMoeForConditionalGeneration`, of which vLLM serves the thinker, a mixture
of experts.

Follows `vllm/model_executor/models/qwen3_omni_moe_thinker.py` of vLLM 0.32. The tower is Qwen3-VL's
with DeepStack, in a class of its own, but a video is one run of tokens, as Qwen2.5-VL's; see
`omni`, `omni_tower` and `mrope`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vllm.model_executor.models.qwen3_omni_moe_thinker import (
    Qwen3OmniMoeThinkerDummyInputsBuilder,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    Qwen3OmniMoeThinkerMultiModalProcessor,
    Qwen3OmniMoeThinkerProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner import compat
from vllm_pruner.families import qwen_grid
from vllm_pruner.families.omni import OmniModel, OmniProcessor, omni_family
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.worker.omni_tower import OmniTower

if TYPE_CHECKING:
    from vllm_pruner.layout.grid_layout import GridLayout

__all__ = ["QWEN3_OMNI", "PrunedQwen3OmniMoe"]


def pace(hf_config: Any, seconds: float | None) -> float:
    """Return the temporal positions of a frame; see `Pace`. The numbers are vLLM's."""
    return (2.0 if seconds is None else seconds) * float(hf_config.position_id_per_seconds)


def largest(info: Any) -> GridLayout:
    """Return the layout with which vLLM profiles memory; see `Family.largest`.

    Raises:
        ConfigError: this vLLM is 0.31.
    """
    if not compat.at_least((0, 32)):
        raise ConfigError(
            "architecture is Qwen3OmniMoeForConditionalGeneration; allowed: vLLM 0.32 or newer, "
            "because 0.31 places its images one token too late"
        )
    return qwen_grid.largest(info)


QWEN3_OMNI = replace(
    omni_family("qwen3_omni_moe", OmniTower, pace), largest=largest, encodes_some=False
)


class PrunedQwen3OmniMoeInfo(  # type: ignore[misc]  # vLLM always says how many items there are
    PrunedInfo, Qwen3OmniMoeThinkerProcessingInfo
):
    """`Qwen3OmniMoeThinkerProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = QWEN3_OMNI
    mark_words = (
        *("<|vision_start|>", "<|vision_end|>"),
        *("<|audio_pad|>", "<|audio_start|>", "<|audio_end|>"),
    )


class PrunedQwen3OmniMoeProcessor(OmniProcessor, Qwen3OmniMoeThinkerMultiModalProcessor):
    """`Qwen3OmniMoeThinkerMultiModalProcessor` with fewer placeholders; see `OmniProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedQwen3OmniMoeProcessor,
    info=PrunedQwen3OmniMoeInfo,
    dummy_inputs=Qwen3OmniMoeThinkerDummyInputsBuilder,
)
class PrunedQwen3OmniMoe(OmniModel, Qwen3OmniMoeThinkerForConditionalGeneration):
    """vLLM's Qwen3-Omni with visual-token pruning; see `OmniModel`."""

    family = QWEN3_OMNI
