"""Encoder disaggregation: an engine that has the tower but no language model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_pruner import methods
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import SettingError

if TYPE_CHECKING:
    from vllm.config import ModelConfig
    from vllm.engine.arg_utils import EngineArgs

    from vllm_pruner.family import Videos

__all__ = ["fault", "lacks_language_model", "video_fault"]

_ELSEWHERE = "or this one on an engine with the language model, which encodes the image itself"


def lacks_language_model(model_config: ModelConfig, engine_args: EngineArgs | None = None) -> bool:
    """Return whether `--mm-encoder-only` is set, or vLLM will set it because the engine only sends
    encoder output (`--ec-transfer-config`)."""
    ec_config = getattr(engine_args, "ec_transfer_config", None)
    if ec_config is not None and ec_config.is_encode_only:
        return True
    return model_config.get_multimodal_config().mm_encoder_only


def fault(config: PruneConfig) -> SettingError | None:
    """Return what is wrong with settings for such an engine, or None."""
    if config.off or not config.resolved[0].needs_text:
        return None
    allowed = [name for name in methods.names() if not methods.get(name).needs_text]
    why = (
        ", which reads the question through the language model, but --mm-encoder-only leaves that "
        "unloaded"
    )
    return SettingError("method", repr(config.method), ", ".join([*allowed, _ELSEWHERE]), why)


def video_fault(config: PruneConfig, videos: Videos | None) -> SettingError | None:
    """Return what is wrong with the settings of a video for such an engine, or None.

    Args:
        config: the settings.
        videos: how the family's videos are pruned.
    """
    if videos is None or not videos.joins(config):
        return None
    why = (
        ", which has the text between frames embedded by the language model, but "
        "--mm-encoder-only leaves that unloaded"
    )
    allowed = ", ".join([*methods.names(), _ELSEWHERE.replace("image", "video")])
    return SettingError("video_method", repr(config.method), allowed, why)
