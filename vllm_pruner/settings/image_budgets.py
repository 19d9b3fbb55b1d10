"""The budget of each image of a request: by its detail level, what it shows, and the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vllm_pruner.picture import UNSEEN, Picture
from vllm_pruner.settings.bounds import clamp, fault_on, request_fault
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.detail import AUTO, TIMES
from vllm_pruner.settings.floor import floored
from vllm_pruner.settings.grounding import grounded
from vllm_pruner.settings.override import override
from vllm_pruner.settings.request_budget import divided, weight
from vllm_pruner.settings.server import ServerConfig

__all__ = ["of_images"]

Look = Callable[[], Sequence[Picture]]


def of_images(
    server: ServerConfig,
    config: PruneConfig,
    levels: Sequence[str],
    tokens: Sequence[int],
    look: Look | None,
    *,
    is_own: bool,
) -> list[PruneConfig]:
    """Return the settings of each image.

    Args:
        server: the operator's settings.
        config: the settings of the request.
        levels: the detail level of each image.
        tokens: visual tokens of each image, unpruned.
        look: returns what each image shows; called only if that matters.
        is_own: whether the request itself set the budget, or it is one for all images together.

    Raises:
        ConfigError: the budget is not possible for these images.
    """
    if config.request_tokens is None:
        configs = _each(server, config, levels, tokens, look)
    else:
        configs = _of_one_budget(server, config, config.request_tokens, levels, tokens, look)
    if config.grounding == "off":
        return configs
    return [
        _grounded(server, each, count, is_own) for each, count in zip(configs, tokens, strict=True)
    ]


def _each(
    server: ServerConfig,
    config: PruneConfig,
    levels: Sequence[str],
    tokens: Sequence[int],
    look: Look | None,
) -> list[PruneConfig]:
    """Return the settings of images that each have a budget of their own."""
    pictures = look() if look and config.floor != "off" and not config.off else _unseen(tokens)
    return [
        _at_level(server, level, floored(config, picture, count, server.limits), count)
        for level, picture, count in zip(levels, pictures, tokens, strict=True)
    ]


def _of_one_budget(
    server: ServerConfig,
    config: PruneConfig,
    budget: int,
    levels: Sequence[str],
    tokens: Sequence[int],
    look: Look | None,
) -> list[PruneConfig]:
    """Return the settings of images that share `budget` tokens."""
    if found := request_fault(server.limits, budget, tokens):
        raise found
    pictures = look() if look and len(tokens) > 1 else _unseen(tokens)
    weights = [
        weight(picture, count, TIMES[level])
        for level, picture, count in zip(levels, pictures, tokens, strict=True)
    ]
    shares = divided(budget, weights, tokens, server.limits.min_tokens)
    each = config.model_copy(update={"request_tokens": None, "floor": "off"})
    return [each.model_copy(update={"tokens": share}) for share in shares]


def _unseen(tokens: Sequence[int]) -> Sequence[Picture]:
    return [UNSEEN] * len(tokens)


def _at_level(server: ServerConfig, level: str, config: PruneConfig, tokens: int) -> PruneConfig:
    """Return the settings of an image of `tokens` visual tokens at one of `LEVELS`, given those at
    `auto`."""
    if level == AUTO:
        return config
    detail = server.detail
    least = min(detail.high, detail.original)
    rate = {"low": detail.low, "high": detail.high, "original": least}[level]
    plain = config.model_copy(update={"floor": "off"})
    rated = override(plain, {"rate": clamp(server.limits, rate)})
    if rated.keep_count(tokens) < min(server.limits.min_tokens, tokens):
        rated = override(plain, {"tokens": server.limits.min_tokens})
    pick = min if level == "low" else max
    return pick(config, rated, key=lambda each: each.keep_count(tokens))


def _grounded(server: ServerConfig, config: PruneConfig, tokens: int, is_own: bool) -> PruneConfig:
    more = grounded(config, tokens, is_own)
    if more.tokens != config.tokens and (found := fault_on(server.limits, more, tokens)):
        raise found
    return more
