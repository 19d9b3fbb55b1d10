"""One torch thread where vLLM's server renders prompts.

vLLM renders images one at a time, in a thread of its own, by torch operators that by default share
their work among all cores. For so little work the other threads mostly spin: a photograph of
1,344 x 1,008 pixels takes Qwen2.5-VL's image processor 5.2 ms of processor time with one thread and
10.0 with two (2026-11-29, two CPU cores, `benchmarks/rendering.py`). An API server is the first
bottleneck on a machine with a GPU, and has more cores to spin on.
"""

from __future__ import annotations

import threading

import torch

__all__ = ["compute_alone"]


def compute_alone() -> None:
    """Have torch use one thread in the calling thread from now on, unless it is the main thread,
    where an engine may run in the same process.

    OpenMP keeps the number per thread; threads that first use torch later also get one.
    """
    if threading.current_thread() is not threading.main_thread() and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
