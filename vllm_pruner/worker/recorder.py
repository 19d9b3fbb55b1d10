"""Record a selection so that it can be run again on the buffers that it read, and refuse one in
which the host takes part.

A CUDA graph replays what the device did. A number that the host read is then old, and a number that
it sent lies in memory that has been used again since.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vllm_pruner.methods.base import Kept

__all__ = ["CudaRecorder", "HostFree", "Record", "Recorded"]

Recorded = tuple[Callable[[], None], Kept]
"""A recorded selection: a function that runs it again, and the buffers that it writes."""

Record = Callable[[Callable[[], Kept]], Recorded]

_READS = ("_local_scalar_dense", "nonzero", "masked_select", "item", "unique")
_SENDS = ("lift_fresh",)
"""What `torch.tensor` calls."""


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


class HostFree(TorchDispatchMode):
    """Within it, an operator that reads on the host, or sends from it, raises `RuntimeError`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = func.overloadpacket.__name__
        if any(part in name for part in (*_READS, *_SENDS)):
            raise RuntimeError(f"the host takes part in it ({name})")
        return func(*args, **(kwargs or {}))
