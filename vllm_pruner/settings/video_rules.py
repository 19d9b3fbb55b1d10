"""Resolve the settings of a request for its videos, which share them; `rules` does for images."""

from __future__ import annotations

from dataclasses import replace

from vllm_pruner.settings.again import UNPRUNED
from vllm_pruner.settings.bounds import count_fault
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.detail import without_detail
from vllm_pruner.settings.errors import SettingError
from vllm_pruner.settings.own_rate import at_rate
from vllm_pruner.settings.rules import ModelInfo, check
from vllm_pruner.settings.server import ServerConfig

__all__ = ["before_tower_fault", "check_video", "resolve_videos"]


def resolve_videos(
    model: ModelInfo, requested: object, is_dummy: bool = False, rate: float | None = None
) -> PruneConfig:
    """Return the settings of every video of a request to a model.

    Args:
        model: the model.
        requested: the request's settings, None if it has none.
        is_dummy: whether the videos are vLLM's dummies; if the model cannot prune videos, these are
            left unpruned.
        rate: as for `rules.resolve`.

    Raises:
        ConfigError: the first fault of the request.
    """
    if requested is UNPRUNED:
        return PruneConfig(rate=0.0)
    if is_dummy and model.video_fault(check(model.prune_config, None).of_video()):
        return PruneConfig(rate=0.0)
    asked = at_rate(check(model.prune_config, without_detail(requested)), rate, requested)
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


def before_tower_fault(config: PruneConfig) -> SettingError | None:
    """Return what is wrong with the settings of a video whose method chooses before the tower: what
    is plain is looked for in images alone."""
    if not config.resolved[0].before_tower:
        return None
    why = ", which looks for what is plain, but not in videos"
    return SettingError("method", repr(config.method), "a video_method, or video_rate 0", why)


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
    if found and without_detail(requested):
        raise found
