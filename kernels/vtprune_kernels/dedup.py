"""VisPruner's iterative removal of near-duplicates, on a Gram matrix.

A list starts as 0..R-1. While it is longer than `keep`, one round

    a = list[0::2], b = list[1::2]                      alternating positions of the current list
    r = min(step, len(list) - keep, len(a))
    q[i] = max_j gram[a[i], b[j]]                       the best match only
    a = a sorted by q descending, ties to the earlier position, without its first r
    list = a followed by b                              re-ordered: the next split depends on it

`r` is bounded by `len(a) = ceil(len(list) / 2)`. The published routine assumes an even list and
raises otherwise; wherever it runs, this one agrees with it. The number of rounds depends on sizes
alone, so the host waits for nothing.

Source: VisPruner (arXiv 2412.01818), section 3.2.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from vtprune_kernels._triton import register_op, traced_on_cpu, use_triton
from vtprune_kernels.cosine_gram import cosine_gram_reference
from vtprune_kernels.dedup_triton import dedup_triton
from vtprune_kernels.one_thread import one_thread
from vtprune_kernels.segments import each_alone
from vtprune_kernels.spec import EXACT, Spec, features

__all__ = ["SPECS", "dedup"]

_MOST_ROWS = 16384
"""Longest list for the kernel, whose keys and lists of neighbours hold 16-bit indices."""


def dedup(
    gram: torch.Tensor,
    keep: int,
    step: int = 8,
    valid: torch.Tensor | None = None,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return which rows survive the removal.

    Args:
        gram: `[segments, R, R]` float32, similarity of every pair, finite.
        keep: rows to leave in each segment, 0 to R.
        step: rows removed in a round, at least 1.
        valid: `[segments, R]` bool, which rows exist; the list starts as these (see `segments`).
        counts: `[segments]` integers, how many of `keep` each segment keeps (see `segments`).

    Returns:
        `[segments, keep]` int64, ascending, with -1 at the end where a segment keeps fewer.

    Raises:
        ValueError: `keep` or `step` is out of range.
    """
    if not 0 <= keep <= gram.shape[-1]:
        raise ValueError(f"keep is {keep}; allowed: 0 to {gram.shape[-1]}")
    if step < 1:
        raise ValueError(f"step is {step}; allowed: 1 and above")
    fits = gram.shape[-1] <= _MOST_ROWS and gram.dtype == torch.float32
    if traced_on_cpu(gram) or (fits and use_triton(gram)):
        return _dedup_op(gram, keep, step, valid, counts)
    return dedup_reference(gram, keep, step, valid, counts)


def dedup_reference(
    gram: torch.Tensor,
    keep: int,
    step: int = 8,
    valid: torch.Tensor | None = None,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Plain torch: segments of one length together, of unequal ones each alone."""
    if valid is None and counts is None:
        return _remove(gram, keep, step)
    return each_alone(partial(_remove, step=step), gram, keep, valid, counts)


def _remove(gram: torch.Tensor, keep: int, step: int) -> torch.Tensor:
    """All segments advance together, one round at a time.

    A round copies whole columns for b and takes the maximum over all rows, although it needs only
    those of a: reading memory in order is several times faster than collecting the pairs.
    """
    segments, rows, _ = gram.shape
    starts = torch.arange(segments, device=gram.device).unsqueeze(1) * rows
    alive = torch.arange(rows, device=gram.device).expand(segments, rows)
    with one_thread():
        columns = gram.mT.contiguous().flatten(0, 1)
        while (length := alive.shape[1]) > keep:
            a, b = alive[:, 0::2], alive[:, 1::2]
            removed = min(step, length - keep, a.shape[1])
            if b.shape[1] == 0:  # a list of one: nothing to compare it with, and keep is 0
                return alive[:, removed:].contiguous()
            of_b = columns.index_select(0, (b + starts).flatten()).view(segments, b.shape[1], rows)
            best = of_b.amax(dim=1).gather(1, a)
            order = best.argsort(dim=1, descending=True, stable=True)[:, removed:]
            alive = torch.cat([a.gather(1, order), b], dim=1)
        return alive.sort(dim=1).values


def _dedup_fake(
    gram: torch.Tensor,
    keep: int,
    step: int = 8,
    valid: torch.Tensor | None = None,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    return gram.new_empty((gram.shape[0], keep), dtype=torch.int64)


_dedup_op = register_op(
    "dedup",
    dedup_triton,
    dedup_reference,
    _dedup_fake,
)


def _make_inputs(
    kind: str, size: int, dtype: torch.dtype, device: torch.device | str, large: bool = False
) -> dict[str, Any]:
    segments, width = (8, 1024) if large else (2, 24)
    rows = features(kind, (segments, size, width), dtype, "cpu")
    gram = cosine_gram_reference(rows).to(device)
    # In production 544 rows are left to 32; a few rounds show as much at less cost.
    keep, step = (size // 18, 8) if large else (max(1, size // 9), max(2, size // 16))
    return {"gram": gram, "keep": keep, "step": step}


SPECS = (
    Spec(
        name="dedup",
        op=dedup,
        reference=dedup_reference,
        launcher=dedup_triton,
        registered=_dedup_op,
        make_inputs=_make_inputs,
        # Comparisons of the same stored numbers.
        tolerance={torch.float32: EXACT, torch.float16: EXACT, torch.bfloat16: EXACT},
    ),
)
