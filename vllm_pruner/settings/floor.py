"""A floor for what an image keeps: the rate applies only to its cells without print (`text`), or
only to its tokens of one brightness (`content`).

So the floor rises continuously, of `text` from nothing for a photograph to nearly all tokens of a
dense page; there is no threshold that one more word could cross.
"""

from __future__ import annotations

from vllm_pruner.picture import Picture
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.defaults import BUDGETS
from vllm_pruner.settings.limits import Limits
from vllm_pruner.settings.plain_tokens import plain_share

__all__ = ["MORE", "floored"]

MORE = {"text": ", more of one with print", "content": " if all of it is plain, else more"}
"""Which images keep more than the budget says, by floor: the end of a sentence."""


def floored(config: PruneConfig, picture: Picture, tokens: int, limits: Limits) -> PruneConfig:
    """Return the settings of an image, with a lower rate if the floor applies to it.

    Args:
        config: the settings, with or without a floor.
        picture: what the image shows.
        tokens: its visual tokens, unpruned.
        limits: the operator's limits; `min_rate` applies to a page, too.

    Returns:
        Settings that never keep less; their `floor` is "off" unless it made a difference.
    """
    plain = config.unfloored
    whole = 0.0 if config.floor == "off" or config.off else _kept_whole(config, picture, tokens)
    if whole == 0:
        return plain
    asked = 1 - config.keep_count(tokens) / tokens
    rate = max(round(asked * (1 - whole), 4), limits.min_rate)
    lower = config.model_copy(update=dict.fromkeys(BUDGETS) | {"rate": rate})
    return max(plain, lower, key=lambda each: each.keep_count(tokens))


def _kept_whole(config: PruneConfig, picture: Picture, tokens: int) -> float:
    """Return the share of an image to which the rate does not apply."""
    return picture.text if config.floor == "text" else 1 - plain_share(picture, tokens)
