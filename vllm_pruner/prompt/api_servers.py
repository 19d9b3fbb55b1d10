"""Advise more API servers, at start, if there is one and the machine has free cores.

This is only advice, because more API servers have drawbacks: each has a processor cache of its own
(`mm_processor_cache_gb`, 4 GiB), a known image is sent to the engine again with every request, and
a client's name for an image is known to only one of them.
"""

from __future__ import annotations

import os

__all__ = ["advice", "cores"]


def cores() -> int:
    """Return the cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def advice(engines: int, workers: int, cores: int) -> str | None:
    """Return the advice for an operator with one API server; None if no core is free for another.

    Args:
        engines: engine processes on this machine, each of which occupies one core.
        workers: worker processes of each engine, each of which occupies one core.
        cores: cores of this machine.
    """
    spare = cores - 1 - engines * (1 + workers)
    if spare < 1:
        return None
    return (
        f"one API server processes images and answers on one of {cores} cores, and {spare} more "
        f"are free: --api-server-count {1 + min(spare, 3)} serves more requests if that core is "
        "the bottleneck (LLaVA-1.5-7B on an H200: four API servers instead of one serve 1.4 to "
        "1.55 times the requests at 8 to 32 clients)"
    )
