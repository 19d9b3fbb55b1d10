"""Resolve the settings of a request, image by image; `video_rules` does for its videos.

A request's settings have the form of `PruneConfig`, plus `detail`, a list with one of `auto`,
`low`, `high`, `original` for each image. They come from the body of a chat completion
(`prompt.chat`) or, offline and from trusted clients, from `mm_processor_kwargs["vtprune"]`. What an
image shows matters only for a floor or a budget for all images of the request, and is examined only
then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from vllm_pruner.picture import Picture
from vllm_pruner.settings.again import UNPRUNED
from vllm_pruner.settings.bounds import fault, fault_on, method_fault, video_method_fault
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.defaults import names_budget
from vllm_pruner.settings.detail import split
from vllm_pruner.settings.errors import ConfigError, SettingError
from vllm_pruner.settings.image_budgets import of_images
from vllm_pruner.settings.override import override
from vllm_pruner.settings.own_rate import at_rate
from vllm_pruner.settings.server import ServerConfig

__all__ = ["ModelInfo", "check", "image_configs", "resolve"]


class ModelInfo(Protocol):
    """What resolving settings needs to know of a model; implemented by `prompt.info.PrunedInfo`."""

    prune_config: ServerConfig
    """The operator's settings."""

    def get_max_image_tokens(self) -> int:
        """Return the visual tokens of the largest image, unpruned."""
        ...

    def fault(self, config: PruneConfig) -> ConfigError | None:
        """Return what is wrong with settings for this model, or None."""
        ...

    def video_fault(self, config: PruneConfig) -> ConfigError | None:
        """Return what is wrong with the settings of a video for this model, or None."""
        ...


def resolve(
    model: ModelInfo,
    requested: object,
    tokens: Sequence[int | None],
    look: Callable[[], Sequence[Picture]] | None = None,
    rate: float | None = None,
) -> list[PruneConfig]:
    """Return the settings of each image of a request to a model.

    Args:
        model: the model.
        requested: the request's settings, None if it has none.
        tokens: visual tokens of each image, unpruned; None if that is not known.
        look: returns what each image shows; None if there are no pixels to examine.
        rate: replaces the server's own rate, for a request that names no budget; None if that rate
            does not move.

    Raises:
        ConfigError: the first fault of the request.
        MethodFault: the method, of another package, returns invalid counts.
    """
    if requested is UNPRUNED:
        return [PruneConfig(rate=0.0)] * len(tokens)
    most = model.get_max_image_tokens()
    counts = [most if count is None else count for count in tokens]
    configs = image_configs(model.prune_config, requested, counts, most, look, rate)
    for config in configs:
        if found := model.fault(config):
            raise found
    for config, known in zip(configs, tokens, strict=True):
        if known is not None:
            config.check_counts(known)
    return configs


def check(server: ServerConfig, requested: object) -> PruneConfig:
    """Return the settings that a request asks for, for any images.

    Args:
        server: the operator's settings.
        requested: the request's settings, None if it has none.

    Raises:
        ConfigError: the first fault.
    """
    if requested is None:
        return server.images
    name = requested.get("method") if isinstance(requested, Mapping) else None
    # Before `override`, whose error for an unknown name lists all installed methods.
    if isinstance(name, str) and (found := method_fault(server.limits, name)):
        raise found
    name = requested.get("video_method") if isinstance(requested, Mapping) else None
    is_new = isinstance(name, str) and name != server.video_method
    if is_new and (found := video_method_fault(server.limits, str(name))):
        raise found
    config = override(server.images, requested)
    if requested and (found := fault(server.limits, config)):
        raise found
    return config


def image_configs(
    server: ServerConfig,
    requested: object,
    tokens: Sequence[int],
    most: int,
    look: Callable[[], Sequence[Picture]] | None = None,
    rate: float | None = None,
) -> list[PruneConfig]:
    """Return the settings of each image of a request.

    Args:
        server: the operator's settings.
        requested: the request's settings, None if it has none.
        tokens: visual tokens of each image, unpruned.
        most: visual tokens of the largest image.
        look: returns what each image shows; None if there are no pixels to examine.
        rate: as for `resolve`.

    Raises:
        ConfigError: the first fault.
    """
    asked, levels = split(requested, len(tokens))
    config = check(server, asked).of_image()
    if config.tokens is not None and config.tokens > most:
        raise SettingError("tokens", str(config.tokens), f"1 to {most}")
    if asked:
        for count in tokens:
            if found := fault_on(server.limits, config, count):
                raise found
    is_own = config.request_tokens is not None or bool(asked and names_budget(asked))
    if is_own and not (asked or {}).get("floor") and not config.resolved[0].before_tower:
        config = config.model_copy(update={"floor": "off"})  # a request's own budget is exact
    config = at_rate(config, rate, asked)  # not held against the limits, which are for requests
    return of_images(server, config, levels, tokens, look, is_own=is_own)
