"""What the host knows, sent to the device without waiting for it.

CUDA copies pageable memory only after everything before it has run, whatever `non_blocking` says;
pinned memory it copies while the host goes on. torch keeps the memory until the copy is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["on_device"]


def on_device(
    values: Sequence[Any], device: torch.device, dtype: torch.dtype = torch.int64
) -> torch.Tensor:
    """Return a tensor of numbers, nested or not, on a device."""
    here = torch.tensor(values, dtype=dtype, pin_memory=device.type == "cuda")
    return here.to(device, non_blocking=True)
