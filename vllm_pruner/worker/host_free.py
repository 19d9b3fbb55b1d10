"""Refuse work that a CUDA graph cannot hold because the host takes part in it.

A graph replays what the device did. A number that the host read is then old, and a number that it
sent lies in memory that has been used again since.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["HostFree"]

_READS = ("_local_scalar_dense", "nonzero", "masked_select", "item", "unique")
_SENDS = ("lift_fresh",)
"""What `torch.tensor` calls."""


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
