"""Sizes of images that this process takes."""

from __future__ import annotations

from collections.abc import Iterable

from vllm_pruner.prompt.refusal import settings_refusal
from vllm_pruner.settings.bounds import size_fault
from vllm_pruner.settings.limits import Limits

__all__ = ["check_file", "check_sizes", "limit_files"]

_LIMITS: list[Limits] = []
"""Of each engine of the process. A server has one; offline there may be several, and a file does
not say for which it is read."""


def limit_files(limits: Limits) -> None:
    """Let `check_file` allow what these limits do."""
    if limits not in _LIMITS:
        _LIMITS.append(limits)


def check_file(size: tuple[int, int] | None) -> None:
    """Refuse a file that no engine of the process takes; see `size_fault`.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    faults = [fault for limits in _LIMITS if (fault := size_fault(limits, size))]
    if faults and len(faults) == len(_LIMITS):
        raise settings_refusal(faults[-1])


def check_sizes(limits: Limits, sizes: Iterable[tuple[int, int] | None]) -> None:
    """Refuse images, files or not, that an engine does not take.

    Args:
        limits: of the engine.
        sizes: width and height in pixels; None for an image of which none is known.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    for size in sizes:
        if size is not None and (fault := size_fault(limits, size)):
            raise settings_refusal(fault)
