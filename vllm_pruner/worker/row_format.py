"""A tower's columns side by side in one tensor of the features' dtype, to the bit.

A CUDA graph has one output. A float32 beside features of 16 bits takes the place of two of them:
the same bytes under another name, never converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

import torch

from vllm_pruner.tower import FEATURES, Columns

__all__ = ["RowFormat"]


class RowFormat:
    """Where each column is in a row."""

    def __init__(self, columns: Mapping[str, tuple[int, torch.dtype]]) -> None:
        """Lay out a row.

        Args:
            columns: width and dtype by name, the features among them; see `Tower.columns`.
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
        """Return `[rows, width]` of `[rows, ...]` by column."""
        parts = [
            columns[name].reshape(len(columns[name]), -1).contiguous().view(self.dtype)
            for name in self._columns
        ]
        return torch.cat(parts, dim=1)

    def unpack(self, packed: torch.Tensor) -> Columns:
        """Return `[rows, ...]` by column, each by itself in memory, of `[rows, width]`."""
        columns = {}
        for name, (width, dtype) in self._columns.items():
            start, end = self._bounds[name]
            rows = packed[:, start:end].clone(memory_format=torch.contiguous_format).view(dtype)
            columns[name] = rows if width else rows.squeeze(1)
        return columns
