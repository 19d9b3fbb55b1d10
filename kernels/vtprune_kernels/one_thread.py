"""References whose steps are too short for several cores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["one_thread"]


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep the calling thread's torch operations on one core.

    A step is tens of microseconds between two barriers. A second core gains nothing (3.2 ms with
    one and with two for all rounds of `dedup`, 544 rows, AMD EPYC), and one that is busy with
    something else, as a server's cores are, makes every barrier wait for the scheduler: 1,024 ms
    instead of 22 for 8 segments.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
