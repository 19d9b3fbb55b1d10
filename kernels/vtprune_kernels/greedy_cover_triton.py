"""Launches of `greedy_select` for "coverage" and "demand": two, however many rows are kept.

The first has all of the GPU read S once, for what each row gains before any is taken. The second is
a lazy greedy selection (Minoux, "Accelerated greedy algorithms for maximizing submodular set
functions", 1978), one program a segment: what a row gains only falls while others are taken, so a
score that was computed earlier is a bound, and the row whose exact score is above all bounds is the
one to take, though few scores are exact. The rows are in parts. A round takes the best row of all
if its score is exact, and computes the best inexact score of each part anew:

    while rows are missing:
        p = the highest row of all, ties to the lower index
        if the score of p is exact: take p, raise the cover by row p, no score is exact any more
        c = the highest row of each part whose score is not exact
        of each c: read row c of S, and its score is exact

Equal to computing every score at every step, in every bit: gains are sums of whole numbers, exact
in any order, and to round and to multiply keep their order. No atomics, no host, one barrier a
round. The first launch also writes S in whole units, in rows of aligned length, which saves the
second two thirds of its instructions and takes as much memory again as S.

How many rounds a picture needs is counted by `benchmarks/greedy_rounds.py`: some two for each row
taken by `scope` at LLaVA's sizes, more where saliency says little. A round reads at most 32 rows of
S, 82 kB of 576, 377 kB of 2,880; every score at every step would be 1.3 and 33 MB. The estimate of
what it takes stands in `kernels/README.md`; it has not run on a GPU. "demand" from longer rows:
`greedy_exact_triton`.
"""

from __future__ import annotations

from typing import Any

import torch

from vtprune_kernels._triton import flags, size_class, triton
from vtprune_kernels.gpu import gpu_of
from vtprune_kernels.greedy_cover_kernels import first_gains_kernel
from vtprune_kernels.greedy_exact_triton import greedy_exact_triton
from vtprune_kernels.greedy_lazy_kernel import lazy_cover_kernel

__all__ = ["PARTS", "greedy_cover_triton"]


_HEIGHT = 8
"""Rows of S that a program of the first launch reads: 80 programs for an image of 576. Not yet
swept on a GPU."""

_HELD = 1024
"""Most columns whose cover stays in registers, in those of every warp. Longer rows are read by half
as many, or for "demand" chosen by `greedy_exact_triton`. Not yet swept on a GPU."""

_LEAST = 128
"""What a warp reads together: 16 bytes a thread."""

_WARPS, _GROUPS = 8, 4
"""Warps of a program of the second launch, and how many parts each of them has. More parts need
fewer rounds and read more rows in each; more in a warp share what is read of the cover. Of 32, two
in each of 16 warps spill registers for "demand". Of 256 rows, 8 parts take 2.4 times as many
rounds. Not yet swept on a GPU."""

PARTS = _WARPS * _GROUPS


def greedy_cover_triton(
    gram: torch.Tensor,
    keep: int,
    objective: str,
    weight: torch.Tensor | None,
    valid: torch.Tensor | None,
    counts: torch.Tensor | None,
) -> torch.Tensor:
    """Launch the first gains and the selection; arguments and result are `greedy_select`'s, with
    `keep` at least 1."""
    segments, rows, _ = gram.shape
    if objective == "demand" and rows > _HELD:
        return greedy_exact_triton(gram, keep, weight, valid, counts)
    block = size_class(rows, 4 * 32 * _WARPS)  # scores: four a thread at least
    held = rows <= _HELD
    chunk = size_class(rows, _LEAST) if held else _HELD // 2
    stride = triton.cdiv(rows, 128) * 128
    kept = gram.new_empty((segments, keep), dtype=torch.int64)
    weights = gram if weight is None else weight.contiguous()
    state = (
        gram.new_empty((segments, rows, stride), dtype=torch.int32),  # S in units
        gram.new_empty((segments, block), dtype=torch.int32),  # score, -1 of what does not exist
        gram.new_empty((2, segments, stride), dtype=torch.int32),  # cover, and demand for it
    )
    options: dict[str, Any] = {
        "OBJECTIVE": objective,
        "HAS_WEIGHT": weight is not None,
        "WARPS": _WARPS,
        "BLOCK": block,
        "CHUNK": chunk,
        "HELD": held,
        "enable_fp_fusion": False,
    }
    first_gains_kernel[(triton.cdiv(max(stride, block), _HEIGHT), segments)](
        gram.contiguous(),
        weights,
        flags(valid, gram),
        *state,
        segments,
        rows,
        HAS_VALID=valid is not None,
        HEIGHT=_HEIGHT,
        LAZY=True,
        num_warps=8 if chunk >= 512 else 4,
        **options,
    )
    lazy_cover_kernel[(segments,)](
        weights,
        gram if counts is None else counts.contiguous(),
        *state,
        gram.new_empty((segments, 2, _WARPS, 4), dtype=torch.int32),
        kept,
        segments,
        rows,
        keep,
        HAS_COUNTS=counts is not None,
        FILLS=valid is not None or counts is not None,
        GROUPS=_GROUPS,
        num_warps=_WARPS,
        **gpu_of(gram.device).registers(255),
        **options,
    )
    return kept
