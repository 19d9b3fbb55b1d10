"""What a server says at its start of what it will do to images."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vllm_pruner import compat
from vllm_pruner.settings.floor import MORE

if TYPE_CHECKING:
    from vllm.config import ModelConfig

    from vllm_pruner.settings.server import ServerConfig

__all__ = ["announce"]

logger = logging.getLogger("vllm.vtprune")


def announce(config: ServerConfig, model_config: ModelConfig, tokens: int) -> None:
    """Say in a line what will happen to every image, in others who prunes videos, if that is vLLM,
    and what may change the rate.

    Args:
        config: the operator's.
        model_config: vLLM's.
        tokens: of the largest image, unpruned.
    """
    if config.off:
        logger.info("vtprune: rate 0: all %d visual tokens of an image are kept", tokens)
    else:
        model = f"{model_config.architecture}, {model_config.model}"
        logger.info("vtprune: %s, for %s", _kept(config, tokens), model)
    if (in_tree := compat.in_tree(model_config.multimodal_config)) is not None:
        logger.info(
            "vtprune: vLLM prunes videos (%s, video_pruning_rate %g), vtprune images only",
            in_tree.method,
            in_tree.rate,
        )
    if config.rate_under_load is not None:
        logger.info(
            "vtprune: the rate goes up to %.4f while %d requests wait for an engine or %.0f %% of "
            "the KV cache is in use",
            config.rate_under_load,
            config.load.waiting,
            100 * config.load.kv_cache,
        )


def _kept(config: ServerConfig, tokens: int) -> str:
    if config.request_tokens is not None:
        return f"{config.method} keeps {config.request_tokens} visual tokens of a request's images"
    keep = config.keep_count(tokens)
    return (
        f"{config.method} keeps {keep} of {tokens} visual tokens per image "
        f"(rate {1 - keep / tokens:.4f}){MORE.get(config.floor, '')}"
    )
