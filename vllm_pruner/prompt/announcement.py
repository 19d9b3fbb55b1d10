"""What a server says at its start of what it will do to images."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm.config import ModelConfig

    from vllm_pruner.settings.server import ServerConfig

__all__ = ["announce"]

logger = logging.getLogger("vllm.vtprune")


def announce(config: ServerConfig, model_config: ModelConfig, tokens: int) -> None:
    """Say in a line what will happen to every image, and in another what may change that.

    Args:
        config: the operator's.
        model_config: vLLM's.
        tokens: of the largest image, unpruned.
    """
    if config.off:
        logger.info("vtprune: rate 0: all %d visual tokens of an image are kept", tokens)
    else:
        keep = config.keep_count(tokens)
        logger.info(
            "vtprune: %s keeps %d of %d visual tokens per image (rate %.4f) for %s, %s",
            config.method,
            keep,
            tokens,
            1 - keep / tokens,
            model_config.architecture,
            model_config.model,
        )
    if config.rate_under_load is not None:
        logger.info(
            "vtprune: the rate goes up to %.4f while %d requests wait for an engine or %.0f %% of "
            "the KV cache is in use",
            config.rate_under_load,
            config.load.waiting,
            100 * config.load.kv_cache,
        )
