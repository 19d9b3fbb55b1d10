"""Copy from the host to the device without a sync.

A copy from pageable memory blocks the host, whatever `non_blocking` says; a copy from pinned memory
does not, unless its numbers have gaps between them, which torch first closes in pageable memory.
torch's caching host allocator keeps the pinned memory until the copy is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["on_device", "sent"]


def on_device(
    values: Sequence[Any] | NDArray[Any],
    device: torch.device,
    dtype: torch.dtype = torch.int64,
) -> torch.Tensor:
    """Return `values`, numbers or nested sequences of numbers, as a tensor on a device."""
    here = torch.tensor(values, dtype=dtype, pin_memory=device.type == "cuda")
    return here.to(device, non_blocking=True)


def sent(here: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor of the host's on a device."""
    pinned = here.contiguous().pin_memory() if device.type == "cuda" else here
    return pinned.to(device, non_blocking=True)
