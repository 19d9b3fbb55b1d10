"""Record a selection so that it can be run again on the buffers that it read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vllm_pruner.methods.base import Kept

__all__ = ["CudaRecorder", "Record", "Recorded"]

Recorded = tuple[Callable[[], None], Kept]
"""A recorded selection: a function that runs it again, and the buffers that it writes."""

Record = Callable[[Callable[[], Kept]], Recorded]


class CudaRecorder:
    """Captures selections in CUDA graphs that share their memory, since one is replayed at a time
    and its result copied before the next. Kernels must have been launched before."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, choose: Callable[[], Kept]) -> Recorded:
        """Capture one selection."""
        graph = torch.cuda.CUDAGraph()
        # Where a capture fails, torch leaves the capture's stream the current one; vLLM, which goes
        # on without these graphs, waits for the stream that it began on.
        here = torch.cuda.stream(torch.cuda.current_stream())
        with here, torch.cuda.graph(graph, pool=self._pool):
            kept = choose()
        self._pool = graph.pool()
        return graph.replay, kept
