"""Launches of `greedy_select` for "coverage" and "demand": one a step, every SM on one image.

A program owns some rows of S, whose gains only it reads and changes. A step (1) finds the best row
p among the programs' best ones, (2) reads row p and the cover, which say whose cover rises, (3)
reads of its own rows those columns alone (S is symmetric) and subtracts what they no longer gain,
which is exact since gains are whole numbers, (4) writes its best open row. Programs of one launch
exchange nothing: what they read of each other, `best` and `cover`, the launch before wrote into the
other of two buffers. So no barrier, no atomics, no host; a CUDA graph takes all launches as they
are: the first gains, keep - 1 steps, the list of what was taken.

Memory: the first launch reads S once, 4 N^2 bytes (1.3 MB of 576, 33 MB of 2,880). A step reads the
sectors of 8 columns of which one rises: all steps together 8 to 19 times S at 64 of 576 (10 to
25 MB), 9 to 26 times at 160 of 2,880 (0.3 to 0.9 GB), from smooth pictures to random rows, counted
on a CPU. Beside it each program reads p's row, the cover and the list of best rows, 8 N + 16 N /
_HEIGHT bytes: 0.4 MB a step of 576, 10 MB of 2,880. All of it stays in an L2 cache of 50 MB.

Estimated for an H200, not measured: 4 to 5 us a step in a CUDA graph, 1.2 of them between two
launches, the rest three dependent reads and three reductions, so 0.3 ms at 64 of 576; 8 to 10 us a
step and 1.3 to 1.6 ms at 160 of 2,880. Without a graph the host decides, with some 10 us a launch.
(One program an image, reading all of S each step, took 6.9 and 8.1 ms at 64 of 576.)
"""

from __future__ import annotations

from typing import Any

import torch

from vtprune_kernels._triton import flags, size_class, triton
from vtprune_kernels.greedy_cover_kernels import (
    cover_step_kernel,
    first_gains_kernel,
    taken_kernel,
)

__all__ = ["greedy_cover_triton"]


_HEIGHT = 8
"""Rows of S that a program owns: 72 programs for an image of 576. Not yet swept on a GPU."""

_CHUNK = 1024
"""Columns read together, 32 numbers of S for each of 256 threads. Longer rows are read by half of
each, so that registers leave room for three programs on an SM. Not yet swept on a GPU."""


def greedy_cover_triton(
    gram: torch.Tensor,
    keep: int,
    objective: str,
    weight: torch.Tensor | None,
    valid: torch.Tensor | None,
    counts: torch.Tensor | None,
) -> torch.Tensor:
    """Launch the first gains, the steps and the list of what was taken; arguments and result are
    `greedy_select`'s, with `keep` at least 1."""
    segments, rows, _ = gram.shape
    block, programs = size_class(rows), triton.cdiv(rows, _HEIGHT)
    kept = gram.new_empty((segments, keep), dtype=torch.int64)
    number = gram.new_empty((segments,), dtype=torch.int32)
    exists = flags(valid, gram)
    state = (
        gram.new_empty((segments, rows), dtype=torch.int64),  # gain, -1 of what is not open
        gram.new_empty((2, segments, rows), dtype=torch.int32),  # cover
        gram.new_empty((2, 2, segments, programs), dtype=torch.int64),  # best: scores, rows
    )
    shared = (
        gram.contiguous(),
        gram if weight is None else weight.contiguous(),
        exists,
        *state,
        segments,
        rows,
        programs,
        number,
    )
    options: dict[str, Any] = {
        "OBJECTIVE": objective,
        "HAS_WEIGHT": weight is not None,
        "HAS_VALID": valid is not None,
        "BLOCK": block,
        "HEIGHT": _HEIGHT,
        "CHUNK": min(block, _CHUNK if block <= _CHUNK else _CHUNK // 2),
        "num_warps": 8 if 512 <= block <= _CHUNK else 4,
        "enable_fp_fusion": False,
    }
    has_counts = counts is not None
    limits = (keep, gram if counts is None else counts.contiguous())
    grid = (programs, segments)
    first_gains_kernel[grid](*shared, *limits, HAS_COUNTS=has_counts, **options)
    for step in range(keep - 1):
        cover_step_kernel[grid](*shared, step, **options)
    taken_kernel[(segments,)](
        *state,
        exists,
        number,
        kept,
        segments,
        rows,
        programs,
        keep,
        HAS_VALID=valid is not None,
        FILLS=valid is not None or has_counts,
        BLOCK=block,
        PROGRAMS=triton.cdiv(block, _HEIGHT),
        num_warps=4 if block < 4096 else 16,
    )
    return kept
