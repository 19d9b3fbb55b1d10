"""Set a process up to serve requests: settings from bodies, counts in answers, routes and metrics.

This happens where the configuration is created and also where a processor is created to render
prompts: a process may get its configuration from a pickle, as Ray's replicas do, and would
otherwise silently ignore the settings in bodies.
"""

from __future__ import annotations

import multiprocessing
from functools import partial
from typing import TYPE_CHECKING

from vllm_pruner import compat, methods
from vllm_pruner.prompt import (
    body,
    chat,
    confidence,
    counts,
    coverage,
    faults,
    first_token,
    image_size,
    jpegs,
    pooled,
    prefill_queue,
    rendered,
    rendering,
    shadow,
    turbo,
)
from vllm_pruner.settings.keys import KEY
from vllm_pruner.settings.server import ServerConfig
from vllm_pruner.telemetry import metrics

if TYPE_CHECKING:
    from vllm.config import ModelConfig

__all__ = ["install", "install_where_rendered"]

_ENGINE_PROCESSES = ("EngineCore", "VllmWorker")
"""Prefixes of the names of vLLM's engine processes. These also create a processor, to profile
memory, but serve no requests."""

_INSTALLED: list[ServerConfig] = []
"""The settings for which this process has been set up."""


def install(config: ServerConfig, model_config: ModelConfig) -> None:
    """Set this process up. Safe to call again.

    Args:
        config: the operator's settings.
        model_config: vLLM's.

    Raises:
        RuntimeError: this vLLM lacks a name that vtprune relies on.
    """
    compat.check(compat.Process.SERVER)
    compat.enable_endpoints(KEY)
    metrics.set_model(str(model_config.served_model_name))
    metrics.publish()
    if any(map(methods.package_of, config.limits.methods or ())):
        compat.patch_generate(KEY, faults.checked)
    compat.patch_generate(f"{KEY}-coverage", coverage.asked)
    compat.patch_generate(f"{KEY}-first-token", first_token.seen)
    if config.rate_under_load is not None:
        compat.patch_generate(f"{KEY}-queue", prefill_queue.seen)
    compat.patch_chat(
        KEY,
        chat.requested,
        counts.take,
        chat.rename,
        counts.report,
        shadow.given,
        confidence.answer_surely,
        rendering.counted,
    )
    compat.patch_chat_batch(counts.add_up, counts.report)
    compat.patch_completion(body.refuse_without_images)
    compat.patch_pooling(KEY, pooled.requested, counts.tell)
    compat.patch_messages(body.meant, counts.told, counts.USAGE)
    compat.patch_offline(counts.USAGE, counts.of_prompt)
    compat.patch_raw_prompts(counts.USAGE, counts.of_prompt)
    compat.patch_delivery()
    compat.patch_rendered(rendered.marked, partial(rendered.checked, config))
    image_size.limit_files(config.limits)
    jpegs.reduce_to(config.jpeg_side)
    compat.patch_image_header(image_size.check_file, jpegs.reduce)
    compat.patch_video_header(image_size.check_video_file)
    compat.patch_known_files(jpegs.reduce, jpegs.decoded_at, turbo.decode, turbo.is_decoded)
    compat.patch_key_holder()


def install_where_rendered(config: ServerConfig, model_config: ModelConfig) -> None:
    """Set this process up unless it is an engine process or has been: vLLM creates a processor for
    every request with an image, to parse its parts."""
    if any(config is known for known in _INSTALLED):
        return
    if not multiprocessing.current_process().name.startswith(_ENGINE_PROCESSES):
        install(config, model_config)
    _INSTALLED.append(config)
