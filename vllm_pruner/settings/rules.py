"""Resolve the settings of a request, image by image.

A request's settings have the form of `PruneConfig`, plus `detail`, a list with one of `auto`,
`low`, `high` for each image. They come from the body of a chat completion (`prompt.chat`) or,
offline and from trusted clients, from `mm_processor_kwargs["vtprune"]`. What an image shows matters
only for a floor or a budget for all images of the request, and is examined only then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from vllm_pruner.picture import Picture
from vllm_pruner.settings.again import UNPRUNED
from vllm_pruner.settings.bounds import (
    count_fault,
    fault,
    fault_on,
    method_fault,
    video_method_fault,
)
from vllm_pruner.settings.config import PruneConfig, names_budget
from vllm_pruner.settings.detail import AUTO, LEVELS
from vllm_pruner.settings.errors import ConfigError, SettingError
from vllm_pruner.settings.image_budgets import of_images
from vllm_pruner.settings.override import override
from vllm_pruner.settings.own_rate import at_rate
from vllm_pruner.settings.server import ServerConfig

__all__ = [
    "DETAIL",
    "ModelInfo",
    "check",
    "check_video",
    "image_configs",
    "override",
    "resolve",
    "resolve_videos",
]

DETAIL = "detail"


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


def resolve_videos(
    model: ModelInfo, requested: object, is_dummy: bool = False, rate: float | None = None
) -> PruneConfig:
    """Return the settings of every video of a request to a model.

    Args:
        model: the model.
        requested: the request's settings, None if it has none.
        is_dummy: whether the videos are vLLM's dummies; if the model cannot prune videos, these are
            left unpruned.
        rate: as for `resolve`.

    Raises:
        ConfigError: the first fault of the request.
    """
    if requested is UNPRUNED:
        return PruneConfig(rate=0.0)
    if is_dummy and model.video_fault(check(model.prune_config, None).of_video()):
        return PruneConfig(rate=0.0)
    asked = at_rate(check(model.prune_config, _without_detail(requested)), rate, requested)
    config, own = asked.of_video(), asked.video_method
    if config.request_tokens is not None:
        why = ", which the images of a message share, but it has a video"
        raise SettingError(
            "request_tokens", str(config.request_tokens), "request_tokens with video_rate", why
        )
    if found := model.video_fault(config):
        if isinstance(found, SettingError) and found.key == "method" and own:
            raise replace(found, key="video_method")
        raise found
    return config


def check_video(server: ServerConfig, requested: object, config: PruneConfig, tokens: int) -> None:
    """Check what is kept of a video against the operator's limits, if the request has settings.

    Args:
        server: the operator's settings.
        requested: the request's settings, None if it has none.
        config: the resulting settings of the video.
        tokens: visual tokens of the video, unpruned.

    Raises:
        ConfigError: too few, or too many, are kept.
        MethodFault: the method, of another package, returns invalid counts.
    """
    config.check_counts(tokens)
    found = count_fault(server.limits, config, tokens, "a video")
    if found and _without_detail(requested):
        raise found


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
    asked, levels = _split(requested, len(tokens))
    config = check(server, asked).of_image()
    if config.tokens is not None and config.tokens > most:
        raise SettingError("tokens", str(config.tokens), f"1 to {most}")
    if asked:
        for count in tokens:
            if found := fault_on(server.limits, config, count):
                raise found
    is_own = config.request_tokens is not None or bool(asked and names_budget(asked))
    if is_own and not (asked or {}).get("floor"):
        config = config.model_copy(update={"floor": "off"})  # a request's own budget is exact
    config = at_rate(config, rate, asked)  # not held against the limits, which are for requests
    return of_images(server, config, levels, tokens, look, is_own=is_own)


def _split(requested: object, images: int) -> tuple[Any, list[str]]:
    """Return the request's settings without `detail`, and a level for each image."""
    if not isinstance(requested, Mapping) or DETAIL not in requested:
        return requested, [AUTO] * images
    levels = requested[DETAIL]
    if not isinstance(levels, list) or any(level not in LEVELS for level in levels):
        raise SettingError(DETAIL, repr(levels), f"a list of {', '.join(LEVELS)}")
    if len(levels) != images:
        raise ConfigError(f"detail has {len(levels)} entries; allowed: one for each of {images}")
    return _without_detail(requested), levels


def _without_detail(requested: object) -> Any:
    if not isinstance(requested, Mapping):
        return requested
    return {key: value for key, value in requested.items() if key != DETAIL}
