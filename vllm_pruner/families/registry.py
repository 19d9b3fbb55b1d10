"""The model families that can be pruned, by vLLM's name of their architecture.

The table holds names only; a family's module is imported when a model of that family is served.
Other packages add families as entry points.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.family import Family
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import ConfigError, SettingError
from vllm_pruner.settings.video_rules import before_tower_fault

__all__ = ["GROUP", "check_videos", "classes", "family_of", "visual_tokens"]

GROUP = "vtprune.families"
"""Entry points `architecture = module:Class`. The class replaces vLLM's own and has a `Family` as
its attribute `family`."""

_BUILT_IN = {
    "Cohere2VisionForConditionalGeneration": (
        "vllm_pruner.families.cohere2_vision:PrunedCohere2Vision"
    ),
    "Cosmos3ForConditionalGeneration": "vllm_pruner.families.cosmos3:PrunedCosmos3",
    "DeepseekOCRForCausalLM": "vllm_pruner.families.deepseek_ocr:PrunedDeepseekOCR",
    "DeepseekV4ForConditionalGeneration": "vllm_pruner.families.deepseek_v4:PrunedDeepseekV4",
    "DotsOCRForCausalLM": "vllm_pruner.families.dots_ocr:PrunedDotsOCR",
    "Ernie4_5_VLMoeForConditionalGeneration": "vllm_pruner.families.ernie4_5_vl:PrunedErnie4_5VL",
    "Exaone4_5_ForConditionalGeneration": "vllm_pruner.families.exaone4_5:PrunedExaone4_5",
    "Gemma3ForConditionalGeneration": "vllm_pruner.families.gemma3:PrunedGemma3",
    "Gemma4ForConditionalGeneration": "vllm_pruner.families.gemma4:PrunedGemma4",
    "Glm4vForConditionalGeneration": "vllm_pruner.families.glm4v:PrunedGlm4v",
    "Glm4vMoeForConditionalGeneration": "vllm_pruner.families.glm4v:PrunedGlm4vMoe",
    "Glm5NextForConditionalGeneration": "vllm_pruner.families.glm5_next:PrunedGlm5Next",
    "GlmOcrForConditionalGeneration": "vllm_pruner.families.glm_ocr:PrunedGlmOcr",
    "Idefics3ForConditionalGeneration": "vllm_pruner.families.idefics3:PrunedIdefics3",
    "InternS1ForConditionalGeneration": "vllm_pruner.families.internvl:PrunedInternVL",
    "InternS2MobiusForConditionalGeneration": (
        "vllm_pruner.families.interns2_mobius:PrunedInternS2Mobius"
    ),
    "InternS2PreviewForConditionalGeneration": (
        "vllm_pruner.families.interns2_preview:PrunedInternS2Preview"
    ),
    "InternVLChatModel": "vllm_pruner.families.internvl_chat:PrunedInternVLChat",
    "InternVLForConditionalGeneration": "vllm_pruner.families.internvl:PrunedInternVL",
    "KeyeForConditionalGeneration": "vllm_pruner.families.keye:PrunedKeye",
    "KeyeVL1_5ForConditionalGeneration": "vllm_pruner.families.keye:PrunedKeye1_5",
    "KimiK25ForConditionalGeneration": "vllm_pruner.families.kimi_k25:PrunedKimiK25",
    "KimiK3ForConditionalGeneration": "vllm_pruner.families.kimi_k3:PrunedKimiK3",
    "KimiVLForConditionalGeneration": "vllm_pruner.families.kimi_vl:PrunedKimiVL",
    "Lfm2VlForConditionalGeneration": "vllm_pruner.families.lfm2_vl:PrunedLfm2VL",
    "LightOnOCRForConditionalGeneration": "vllm_pruner.families.lightonocr:PrunedLightOnOCR",
    "Llama4ForConditionalGeneration": "vllm_pruner.families.llama4:PrunedLlama4",
    "LlavaForConditionalGeneration": "vllm_pruner.families.llava:PrunedLlava",
    "LlavaNextForConditionalGeneration": "vllm_pruner.families.llava_next:PrunedLlavaNext",
    "LlavaOnevisionForConditionalGeneration": (
        "vllm_pruner.families.llava_onevision:PrunedLlavaOnevision"
    ),
    "MiniCPMV": "vllm_pruner.families.minicpmv:PrunedMiniCPMV",
    "MiniCPMV4_6ForConditionalGeneration": "vllm_pruner.families.minicpmv4_6:PrunedMiniCPMV4_6",
    "MiniCPMV4_7ForConditionalGeneration": "vllm_pruner.families.minicpmv4_7:PrunedMiniCPMV4_7",
    "MiniMaxM3SparseForConditionalGeneration": "vllm_pruner.families.minimax_m3:PrunedMiniMaxM3",
    "Mistral3ForConditionalGeneration": "vllm_pruner.families.mistral3:PrunedMistral3",
    "Molmo2ForConditionalGeneration": "vllm_pruner.families.molmo2:PrunedMolmo2",
    "NemotronH_Nano_Omni_Reasoning_V3": "vllm_pruner.families.nemotron_vl:PrunedNemotronVL",
    "NemotronH_Nano_VL_V2": "vllm_pruner.families.nemotron_vl:PrunedNemotronVL",
    "NemotronH_Omni_Reasoning_V3": "vllm_pruner.families.nemotron_vl:PrunedNemotronVL",
    "NemotronH_Super_Omni_Reasoning_V3": "vllm_pruner.families.nemotron_vl:PrunedNemotronVL",
    "PaddleOCRVLForConditionalGeneration": "vllm_pruner.families.paddleocr_vl:PrunedPaddleOCRVL",
    "PixtralForConditionalGeneration": "vllm_pruner.families.pixtral:PrunedPixtral",
    "QianfanOCRForConditionalGeneration": "vllm_pruner.families.qianfan_ocr:PrunedQianfanOCR",
    "Qwen2VLForConditionalGeneration": "vllm_pruner.families.qwen2_vl:PrunedQwen2VL",
    "Qwen2_5OmniForConditionalGeneration": "vllm_pruner.families.qwen2_5_omni:PrunedQwen2_5Omni",
    "Qwen2_5OmniModel": "vllm_pruner.families.qwen2_5_omni:PrunedQwen2_5Omni",
    "Qwen2_5_VLForConditionalGeneration": "vllm_pruner.families.qwen2_5_vl:PrunedQwen2_5_VL",
    "Qwen3_5ForConditionalGeneration": "vllm_pruner.families.qwen3_5:PrunedQwen3_5",
    "Qwen3_5MoeForConditionalGeneration": "vllm_pruner.families.qwen3_5:PrunedQwen3_5Moe",
    "Qwen3OmniMoeForConditionalGeneration": (
        "vllm_pruner.families.qwen3_omni_moe:PrunedQwen3OmniMoe"
    ),
    "Qwen3VLForConditionalGeneration": "vllm_pruner.families.qwen3_vl:PrunedQwen3VL",
    "Qwen3VLMoeForConditionalGeneration": "vllm_pruner.families.qwen3_vl:PrunedQwen3VLMoe",
    "Qwen4ExpForConditionalGeneration": "vllm_pruner.families.qwen4_exp:PrunedQwen4Exp",
    "SkyworkR1VChatModel": "vllm_pruner.families.skywork_r1v:PrunedSkyworkR1V",
    "SmolVLMForConditionalGeneration": "vllm_pruner.families.smolvlm:PrunedSmolVLM",
    "StepVLForConditionalGeneration": "vllm_pruner.families.step_vl:PrunedStepVL",
}


@cache
def classes() -> dict[str, str]:
    """Return `module:Class` by architecture, as for vLLM's `model_class_overrides`.

    Raises:
        ConfigError: an architecture has more than one class.
    """
    known = dict(_BUILT_IN)
    for entry in entry_points(group=GROUP):
        if known.setdefault(entry.name, entry.value) != entry.value:
            raise ConfigError(
                f"architecture {entry.name} has the classes {known[entry.name]} and {entry.value} "
                f"of installed packages ({GROUP}); allowed: one"
            )
    return known


def family_of(hf_config: Any) -> Family:
    """Return the family of a model.

    Raises:
        ConfigError: the model's architecture belongs to no family, or its class cannot be used.
    """
    architectures = hf_config.architectures or ["unknown"]
    for architecture in architectures:
        if architecture in classes():
            return _load(architecture)
    raise ConfigError(
        f"architecture is {', '.join(architectures)}; allowed: {', '.join(classes())}"
    )


@cache
def _load(architecture: str) -> Family:
    value = classes()[architecture]
    try:
        family = EntryPoint(architecture, value, GROUP).load().family
    except (ImportError, AttributeError) as error:
        missing = str(getattr(error, "name", None))
        if isinstance(error, ModuleNotFoundError) and missing.startswith("vllm."):
            raise ConfigError(
                f"architecture is {architecture}; allowed: a vLLM that has {missing}, which this "
                "one lacks"
            ) from error
        raise ConfigError(
            f"architecture {architecture} cannot be loaded from {value!r}: {error}"
        ) from error
    if not isinstance(family, Family):
        raise ConfigError(f"family of {value!r} is {type(family).__name__}; allowed: a Family")
    return family


def visual_tokens(model_config: Any, config: PruneConfig) -> int:
    """Return the most visual tokens that an image of this model can have, unpruned.

    Args:
        model_config: vLLM's configuration, with the pruning class in place of the stock one.
        config: the operator's settings.

    Raises:
        ConfigError: the model cannot be pruned, or not with these settings.
    """
    family = family_of(model_config.hf_config)
    tokens = family.largest(MULTIMODAL_REGISTRY.get_processing_info(model_config)).tokens
    if config.tokens is not None and config.tokens > tokens:
        allowed = f"1 to {tokens}, an image's visual tokens here"
        raise SettingError("tokens", str(config.tokens), allowed)
    family.check(model_config.hf_config, config)
    return tokens


def check_videos(model_config: Any, config: PruneConfig) -> None:
    """Refuse an operator's settings for videos that this model does not support.

    Args:
        model_config: vLLM's configuration.
        config: the operator's settings.

    Raises:
        ConfigError: the first fault.
    """
    said = {"video_method": config.video_method, "video_rate": config.video_rate}
    named = [(key, repr(value)) for key, value in said.items() if value]
    video = config.of_video()
    if not named or video.off:
        return
    family = family_of(model_config.hf_config)
    if family.videos is None:
        why = f", but videos of {family.name} cannot be pruned"
        raise SettingError(*named[0], "none, or video_rate 0", why)
    try:
        if found := before_tower_fault(video):
            raise found
        family.check_served(model_config.hf_config, video.resolved[0])
    except SettingError as error:
        raise replace(error, key=named[0][0]) from None
