"""The model families that can be pruned: architecture to class, and what a configuration gives.

Names only: the class is imported by vLLM where it is needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from vllm_pruner.config import ConfigError, PruneConfig

__all__ = ["CLASSES", "visual_tokens"]

CLASSES = {
    "LlavaForConditionalGeneration": "vllm_pruner.models.llava:PrunedLlava",
    "LlavaNextForConditionalGeneration": "vllm_pruner.models.llava_next:PrunedLlavaNext",
}
"""vLLM's `model_class_overrides`: architecture to `module:Class`. The module also has
`visual_tokens(hf_config)`: the most tokens of an image, or a ConfigError."""


def visual_tokens(hf_config: Any, config: PruneConfig) -> int:
    """Return the most visual tokens that an image of this model has, unpruned.

    Raises:
        ConfigError: the model cannot be pruned, or not with these settings.
    """
    for architecture in hf_config.architectures or []:
        if architecture in CLASSES:
            family = import_module(CLASSES[architecture].partition(":")[0])
            tokens: int = family.visual_tokens(hf_config)
            break
    else:
        raise ConfigError(
            f"architecture is {', '.join(hf_config.architectures or ['unknown'])}; "
            f"allowed: {', '.join(CLASSES)}"
        )
    if config.tokens is not None and config.tokens > tokens:
        raise ConfigError(
            f"tokens is {config.tokens}; allowed: 1 to {tokens}, an image's visual tokens here"
        )
    return tokens
