"""Pack a tower's columns into one tensor of the features' dtype, without changing a bit.

A CUDA graph has one output. A float32 takes the place of two 16-bit features: its bytes are
reinterpreted, never converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

import torch

from vllm_pruner.tower import FEATURES, Columns

__all__ = ["RowFormat"]


class RowFormat:
    """The place of each column in a row."""

    def __init__(self, columns: Mapping[str, tuple[int, torch.dtype]]) -> None:
        """Lay out a row.

        Args:
            columns: width and dtype by name, features included; see `Tower.columns`.
        """
        self._columns = dict(columns)
        self.dtype = columns[FEATURES][1]
        sizes = [
            max(1, width) * dtype.itemsize // self.dtype.itemsize
            for width, dtype in columns.values()
        ]
        ends = list(accumulate(sizes))
        self.width = ends[-1]
        self._bounds = {
            name: (end - size, end) for name, size, end in zip(columns, sizes, ends, strict=True)
        }

    def pack(self, columns: Columns) -> torch.Tensor:
        """Pack columns `[rows, ...]` into `[rows, width]`."""
        parts = [
            columns[name].reshape(len(columns[name]), -1).contiguous().view(self.dtype)
            for name in self._columns
        ]
        return torch.cat(parts, dim=1)

    def unpack(self, packed: torch.Tensor) -> Columns:
        """Unpack `[rows, width]` into columns `[rows, ...]`, each a copy."""
        columns = {}
        for name, (width, dtype) in self._columns.items():
            start, end = self._bounds[name]
            rows = packed[:, start:end].clone(memory_format=torch.contiguous_format).view(dtype)
            columns[name] = rows if width else rows.squeeze(1)
        return columns
