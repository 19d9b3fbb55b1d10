"""Grounding: enough tokens for boxes and points, which need more than descriptions do.

Qwen's authors recommend at least 1,024 visual tokens for an image in which things are located.
"""

from __future__ import annotations

from typing import Final

from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.defaults import BUDGETS
from vllm_pruner.settings.errors import SettingError

__all__ = ["LEAST", "grounded"]

LEAST: Final = 1024
"""Fewest visual tokens kept of an image."""


def grounded(config: PruneConfig, tokens: int, is_own: bool) -> PruneConfig:
    """Return the settings of an image, with enough tokens if they ask for grounding.

    Args:
        config: the settings of the image.
        tokens: its visual tokens, unpruned.
        is_own: whether the request itself set the budget, or it is one for all images together;
            such a budget is not changed.

    Returns:
        Settings with `grounding` "off": what it requires is in their other keys.

    Raises:
        SettingError: a budget that may not be changed keeps too few tokens.
    """
    plain = config.model_copy(update={"grounding": "off"})
    keep, least = config.keep_count(tokens), min(LEAST, tokens)
    if config.grounding != "on" or keep >= least:
        return plain
    if not is_own:
        return plain.model_copy(update=dict.fromkeys(BUDGETS) | {"tokens": least})
    why = f" but {keep} of an image's {tokens} tokens are kept"
    allowed = f"'forced', or a budget that keeps {least} of it"
    raise SettingError("grounding", repr(config.grounding), allowed, why)
