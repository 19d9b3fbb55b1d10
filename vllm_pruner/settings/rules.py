"""What one request asks for, image by image.

A request says it in the form of `PruneConfig`, plus `detail`, a list with one of `auto`, `low`,
`high` for each image. It comes from the body of a chat completion (`prompt.chat`) or, offline and
from trusted clients, straight from `mm_processor_kwargs["vtprune"]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vllm_pruner.settings.config import PruneConfig, ServerConfig
from vllm_pruner.settings.detail import AUTO, LEVELS
from vllm_pruner.settings.errors import ConfigError, SettingError

__all__ = ["DETAIL", "check", "image_configs"]

DETAIL = "detail"


def check(server: ServerConfig, requested: object) -> PruneConfig:
    """Return the settings that a request asks for, whatever its images are.

    Args:
        server: the operator's settings.
        requested: the request's, None if it has none.

    Raises:
        ConfigError: the first fault.
    """
    if requested is None:
        return server.images
    config = server.images.override(requested)
    if requested and (fault := server.limits.fault(config)):
        raise fault
    return config


def image_configs(
    server: ServerConfig, requested: object, tokens: Sequence[int], most: int
) -> list[PruneConfig]:
    """Return the settings of each image of a request.

    Args:
        server: the operator's settings.
        requested: the request's, None if it has none.
        tokens: visual tokens of each image, unpruned.
        most: visual tokens of the largest image.

    Raises:
        ConfigError: the first fault.
    """
    asked, levels = _split(requested, len(tokens))
    config = check(server, asked)
    if config.tokens is not None and config.tokens > most:
        raise SettingError("tokens", str(config.tokens), f"1 to {most}")
    if asked:
        for count in tokens:
            if fault := server.limits.fault_on(config, count):
                raise fault
    return [
        server.detail.apply(level, config, server.limits, count)
        for level, count in zip(levels, tokens, strict=True)
    ]


def _split(requested: object, images: int) -> tuple[Any, list[str]]:
    """The request's settings without `detail`, and a level for each image."""
    if not isinstance(requested, Mapping) or DETAIL not in requested:
        return requested, [AUTO] * images
    levels = requested[DETAIL]
    if not isinstance(levels, list) or any(level not in LEVELS for level in levels):
        raise SettingError(DETAIL, repr(levels), f"a list of {', '.join(LEVELS)}")
    if len(levels) != images:
        raise ConfigError(f"detail has {len(levels)} entries; allowed: one for each of {images}")
    return {key: value for key, value in requested.items() if key != DETAIL}, levels
