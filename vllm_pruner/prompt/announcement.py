"""What a server says at its start of what it will do to images."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vllm_pruner import compat

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
        keep = config.keep_count(tokens)
        logger.info(
            "vtprune: %s keeps %d of %d visual tokens per image (rate %.4f)%s for %s, %s",
            config.method,
            keep,
            tokens,
            1 - keep / tokens,
            " if all of it is plain, else more" if config.floor == "content" else "",
            model_config.architecture,
            model_config.model,
        )
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
