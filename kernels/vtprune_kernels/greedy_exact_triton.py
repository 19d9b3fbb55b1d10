"""Launches of `greedy_select` for "demand" from more rows than the lazy kernel holds
(`greedy_cover_triton`): `SPREAD` + 2, however many rows are kept.

To take a row raises the cover of fewer and fewer columns: on noise, where they rise by chance, the
n-th of one in n + 1. What the other rows gain less stands in these columns alone, so all gains stay
exact, and a round takes a row:

    while rows are missing:
        p = the highest row of all, ties to the lower index
        list the columns whose cover p raises
        of each of them, j: read row j of S, which is symmetric, and subtract from each row's gain
        what it can no longer gain there

The first rows raise the cover of most columns, so all of the GPU takes these: the first launch
reads S for all gains, and each of the next `SPREAD` reads it again, above the cover with one more
row. The last launch is one program a segment. No atomics, no host; gains are sums of whole numbers,
exact in any order.

From 2,880 rows, 160 kept, it reads a half of what a lazy selection reads, in a third to a quarter
of the rounds, and hardly more with equal weights, where a lazy one reads twice as much
(`benchmarks/greedy_rounds.py`). A lazy one is left to "coverage", whose scores a row's own weight
spreads, so that fewer are looked at. It has not run on a GPU.
"""

from __future__ import annotations

from typing import Any

import torch

from vtprune_kernels._triton import flags, triton
from vtprune_kernels.gpu import gpu_of
from vtprune_kernels.greedy_cover_kernels import first_gains_kernel
from vtprune_kernels.greedy_exact_kernels import exact_cover_kernel, next_gains_kernel

__all__ = ["SPREAD", "greedy_exact_triton"]


SPREAD = 6
"""Rows that all of the GPU takes; even, so that what the last launch reads is the first half of the
buffers. From 2,880 the seventh raises the cover of some 400 columns of noise, which the last launch
reads in 40 to 90 us by the estimate of `kernels/README.md`, and such a launch all of S in 10. But
where images are many, these go through the GPU's memory, and the last launch has a multiprocessor
for each. Not yet swept on a GPU."""

_HEIGHT = 8
"""Rows of S that a program of all but the last launch reads. Not yet swept on a GPU."""

_CHUNK = 1024
"""Rows whose gains are in registers, four a thread. Not yet swept on a GPU."""

_LISTED = 4096
"""Columns of which those that rise are found together. Not yet swept on a GPU."""

_AHEAD = 8
"""Rows of S that are read at once, so that their loads wait for memory once: 32 kB of them. Not yet
swept on a GPU."""


def greedy_exact_triton(
    gram: torch.Tensor,
    keep: int,
    weight: torch.Tensor | None,
    valid: torch.Tensor | None,
    counts: torch.Tensor | None,
) -> torch.Tensor:
    """Launch the first rows and the selection; arguments and result are `greedy_select`'s, with
    `keep` at least 1, and at least `_CHUNK` rows."""
    segments, rows, _ = gram.shape
    stride = triton.cdiv(rows, 128) * 128
    kept = gram.new_empty((segments, keep), dtype=torch.int64)
    unit = gram.new_empty((segments, rows, stride), dtype=torch.int32)  # S in units
    # Of each row what it would gain, in two halves, then of each column its cover, before and after
    # a row is taken; and what is asked for.
    gain = gram.new_empty((2, 2, segments, stride), dtype=torch.int32)
    cover = gram.new_empty((3, segments, stride), dtype=torch.int32)
    limits = gram if counts is None else counts.contiguous()
    options: dict[str, Any] = {"CHUNK": _CHUNK, "num_warps": 8, "enable_fp_fusion": False}
    grid = (triton.cdiv(stride, _HEIGHT), segments)
    first_gains_kernel[grid](
        gram.contiguous(),
        gram if weight is None else weight.contiguous(),
        flags(valid, gram),
        unit,
        gain,
        cover,
        segments,
        rows,
        OBJECTIVE="demand",
        HAS_WEIGHT=weight is not None,
        HAS_VALID=valid is not None,
        HEIGHT=_HEIGHT,
        WARPS=0,
        BLOCK=0,
        HELD=False,
        LAZY=False,
        **options,
    )
    for turn in range(SPREAD):
        old, new = turn % 2, 1 - turn % 2
        next_gains_kernel[grid](
            limits,
            unit,
            gain[old],
            gain[new],
            cover[2 * old],
            cover[2 * new],
            cover[1],
            segments,
            rows,
            keep,
            turn,
            HAS_COUNTS=counts is not None,
            HEIGHT=_HEIGHT,
            **options,
        )
    exact_cover_kernel[(segments,)](
        limits,
        unit,
        gain,
        cover,
        cover[1],
        gram.new_empty((segments, 4, stride + _AHEAD), dtype=torch.int32),
        kept,
        segments,
        rows,
        keep,
        HAS_COUNTS=counts is not None,
        FILLS=valid is not None or counts is not None,
        LISTED=_LISTED,
        AHEAD=_AHEAD,
        **gpu_of(gram.device).registers(255),
        **options,
    )
    return kept
