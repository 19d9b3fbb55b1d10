"""A floor under what an image with print keeps: its cells of print are not pruned.

The rest is, at the rate that was asked for, so the floor goes from nothing, for a photograph, to
nearly all of a dense page, without a step that one more word could trip.
"""

from __future__ import annotations

from vllm_pruner.picture import Picture
from vllm_pruner.settings.config import BUDGETS, PruneConfig
from vllm_pruner.settings.limits import Limits

__all__ = ["floored"]


def floored(config: PruneConfig, picture: Picture, tokens: int, limits: Limits) -> PruneConfig:
    """Return the settings of an image, with a lower rate if it has print.

    Args:
        config: with the floor or without.
        picture: what the image shows.
        tokens: its visual tokens, unpruned.
        limits: the operator's; what is removed at least is removed of a page too.

    Returns:
        Settings whose `floor` says whether it made a difference. They never keep less.
    """
    plain = config.unfloored
    if config.floor == "off" or config.off or picture.text == 0:
        return plain
    asked = 1 - config.keep_count(tokens) / tokens
    rate = max(round(asked * (1 - picture.text), 4), limits.min_rate)
    lower = config.model_copy(update=dict.fromkeys(BUDGETS) | {"rate": rate})
    return max(plain, lower, key=lambda each: each.keep_count(tokens))
