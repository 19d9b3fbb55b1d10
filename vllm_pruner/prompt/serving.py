"""What a process that takes requests needs beside the processor: settings out of bodies, counts
into answers, routes and metrics.

Whoever makes the configuration installs it, and whoever makes the processor, which renders prompts:
a configuration may come out of a pickle in a process that made none, as Ray hands it to its
replicas. There a body's settings would otherwise be ignored in silence.
"""

from __future__ import annotations

import multiprocessing

from vllm_pruner import compat, methods
from vllm_pruner.prompt import body, chat, faults, image_size, shadow
from vllm_pruner.settings.keys import KEY
from vllm_pruner.settings.limits import Limits
from vllm_pruner.telemetry import metrics

__all__ = ["install", "install_where_rendered"]

_ENGINE_PROCESSES = ("EngineCore", "VllmWorker")
"""What vLLM calls the processes that it starts for the engine. They make a processor as well, to
profile memory, and take no requests."""

_INSTALLED: list[Limits] = []
"""The limits of which this process was looked after."""


def install(limits: Limits) -> None:
    """Install it in this process. Safe to call again.

    Args:
        limits: of what a request may ask for.

    Raises:
        RuntimeError: this vLLM lacks a name that it relies on.
    """
    compat.check(compat.Process.SERVER)
    compat.enable_endpoints(KEY)
    metrics.publish()
    if any(map(methods.package_of, limits.methods or ())):
        compat.patch_generate(KEY, faults.checked)
    compat.patch_chat(KEY, chat.requested, chat.take_counts, chat.rename, chat.report, shadow.given)
    compat.patch_chat_batch(chat.add_up, chat.report)
    compat.patch_completion(body.refuse_without_images)
    compat.patch_messages(body.meant, chat.told, chat.USAGE)
    compat.patch_offline(chat.USAGE, chat.counts)
    compat.patch_delivery()
    image_size.limit_files(limits)
    compat.patch_image_header(image_size.check_file)
    compat.patch_known_files()
    compat.patch_key_holder()


def install_where_rendered(limits: Limits) -> None:
    """The same, unless this process is one of the engine's, or has it already: vLLM makes a
    processor for every request with an image, to read its parts."""
    if limits in _INSTALLED:
        return
    if not multiprocessing.current_process().name.startswith(_ENGINE_PROCESSES):
        install(limits)
    _INSTALLED.append(limits)
