"""The model families that can be pruned: architecture to class, and what a configuration gives.

Names only: the class is imported by vLLM where it is needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import ConfigError

__all__ = ["CLASSES", "check_method", "visual_tokens"]

CLASSES = {
    "LlavaForConditionalGeneration": "vllm_pruner.families.llava:PrunedLlava",
    "LlavaNextForConditionalGeneration": "vllm_pruner.families.llava_next:PrunedLlavaNext",
}
"""vLLM's `model_class_overrides`: architecture to `module:Class`. The module also has
`visual_tokens(hf_config)`: the most tokens of an image, or a ConfigError; and
`check_method(hf_config, method)`: a ConfigError for a method that the family cannot serve."""


def visual_tokens(hf_config: Any, config: PruneConfig) -> int:
    """Return the most visual tokens that an image of this model has, unpruned.

    Raises:
        ConfigError: the model cannot be pruned, or not with these settings.
    """
    family = _family(hf_config)
    tokens: int = family.visual_tokens(hf_config)
    if config.tokens is not None and config.tokens > tokens:
        raise ConfigError(
            f"tokens is {config.tokens}; allowed: 1 to {tokens}, an image's visual tokens here"
        )
    check_method(hf_config, config)
    return tokens


def check_method(hf_config: Any, config: PruneConfig) -> None:
    """Refuse settings whose method this model cannot serve.

    Raises:
        ConfigError: one sentence with the method and the reason.
    """
    _family(hf_config).check_method(hf_config, config.resolved[0])


def _family(hf_config: Any) -> Any:
    for architecture in hf_config.architectures or []:
        if architecture in CLASSES:
            return import_module(CLASSES[architecture].partition(":")[0])
    raise ConfigError(
        f"architecture is {', '.join(hf_config.architectures or ['unknown'])}; "
        f"allowed: {', '.join(CLASSES)}"
    )
