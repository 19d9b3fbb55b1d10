"""Check the sizes of images against the operator's limits."""

from __future__ import annotations

from collections.abc import Iterable

from vllm_pruner.prompt.refusal import settings_refusal
from vllm_pruner.settings.bounds import size_fault
from vllm_pruner.settings.limits import Limits

__all__ = ["check_file", "check_sizes", "limit_files"]

_LIMITS: list[Limits] = []
"""The limits of each engine in this process. A server has one engine; offline there may be several,
and when a file is read it is not known for which."""


def limit_files(limits: Limits) -> None:
    """Let `check_file` allow what these limits allow."""
    if limits not in _LIMITS:
        _LIMITS.append(limits)


def check_file(size: tuple[int, int] | None) -> None:
    """Refuse a file that no engine in this process accepts; see `size_fault`.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    faults = [fault for limits in _LIMITS if (fault := size_fault(limits, size))]
    if faults and len(faults) == len(_LIMITS):
        raise settings_refusal(faults[-1])


def check_sizes(limits: Limits, sizes: Iterable[tuple[int, int] | None]) -> None:
    """Refuse images that an engine does not accept, whether they came as files or not.

    Args:
        limits: the engine's limits.
        sizes: width and height of each image in pixels; None if not known.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    for size in sizes:
        if size is not None and (fault := size_fault(limits, size)):
            raise settings_refusal(fault)
