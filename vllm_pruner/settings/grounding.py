"""Grounding: as many tokens as boxes and points need, which is more than a description needs.

Qwen's authors recommend 1,024 visual tokens and more for an image in which things are to be found.
"""

from __future__ import annotations

from typing import Final

from vllm_pruner.settings.config import BUDGETS, PruneConfig
from vllm_pruner.settings.errors import SettingError

__all__ = ["LEAST", "grounded"]

LEAST: Final = 1024
"""Visual tokens of an image."""


def grounded(config: PruneConfig, tokens: int, is_own: bool) -> PruneConfig:
    """Return the settings of an image under which things are found in it.

    Args:
        config: of the image, grounded or not.
        tokens: its visual tokens, unpruned.
        is_own: whether the budget was named for this request, or for all its images together;
            it is not changed then.

    Returns:
        Settings without a word on grounding: what it asks for is in their other keys.

    Raises:
        SettingError: such a budget keeps too few.
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
