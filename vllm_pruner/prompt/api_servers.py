"""What more API servers would give, said at start where there is one and the machine has cores.

It is said and not done: each API server has a processor cache of its own (`mm_processor_cache_gb`,
4 GiB), with several of them a known picture goes to the engine again with every request, and a name
that a client gives a picture is known to one of them only.
"""

from __future__ import annotations

import os

__all__ = ["advice", "cores"]


def cores() -> int:
    """Return the cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def advice(engines: int, workers: int, cores: int) -> str | None:
    """Return the sentence for an operator with one API server; None if no core is left for another.

    Args:
        engines: engine processes on this machine, each busy on one core.
        workers: of each of them, which drive a device from one core each.
        cores: of this machine.
    """
    spare = cores - 1 - engines * (1 + workers)
    if spare < 1:
        return None
    return (
        f"one API server reads pictures and writes answers on one of {cores} cores, and {spare} "
        f"more are free: --api-server-count {1 + min(spare, 3)} answers more where that core is "
        "the limit (LLaVA-1.5-7B on an H200: four instead of one are 1.4 to 1.55 times the "
        "requests at 8 to 32 clients)"
    )
