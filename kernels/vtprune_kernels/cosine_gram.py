"""Cosine similarities of all pairs of rows, reproducible to the last bit.

Greedy selection is chaotic: a change of 1e-6 in one similarity reorders a list and ends in another
kept set. A floating-point GEMM makes such changes whenever the batch size, the tile size, the
number of threads or the device differ, because each adds the products in its own order. So the
similarity is *defined* in fixed point:

    scale[i]   = float32(2**22 / |row[i]|)                 the norm in float64
    unit[i]    = round(row[i] * scale[i]) / 2**22          integers of at most 22 bits and a sign
    gram[i, j] = float32(sum_c unit[i, c] * unit[j, c])    the sum is exact, rounded once

Every product is a multiple of 2**-44 and every partial sum is below 2, so a float64 accumulator
(53 bits) never rounds: any order of addition, any blocking, any batch gives the same bits. The
rounding of a coordinate is at most 2**-23, below that of float32 for coordinates over 1/4, and
moves a cosine by about 1e-7 (measured on CLIP-like features), as a float32 GEMM does itself.
Rounding the scale costs another 6e-8 at most and makes it the same number on every device: float64
sums of squares differ in their last bit between devices, which survives rounding to float32 in one
row of 2**28.

Rows of zeros, and rows with an infinity or a NaN, have no direction; their similarity to
everything, themselves included, is 0. Norms below 2**-100 count as 2**-100.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from vtprune_kernels._triton import register_op, use_triton
from vtprune_kernels.cosine_gram_triton import cosine_gram_triton
from vtprune_kernels.spec import EXACT, Spec, features

__all__ = ["SPECS", "cosine_gram"]

FRACTION_BITS = 22
_SMALLEST_NORM = 2.0**-100
MOST_CHANNELS = 65_535

_WORK_BYTES = 1 << 24
"""Float64 workspace per slice of images. Above about 32 MB glibc maps fresh pages for every call,
and faulting them in takes longer than the GEMM (8 images of 544 x 1024 on two EPYC cores: 108 ms of
faults against 48 ms of GEMM; `benchmarks/selection.py`)."""

_BLOCK_ROWS = 96
"""Rows of the reference's blocks. 544 rows of 1024 on one EPYC core: 11.6 ms as one product, 7.3 ms
in blocks of 96, 7.8 ms in blocks of 128."""


def cosine_gram(
    features: torch.Tensor, rows: torch.Tensor | None = None, valid: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the cosine similarity of every pair of rows of each segment.

    Args:
        features: `[segments, N, D]`, any float dtype.
        rows: `[segments, R]` int64, which rows and in which order; all of them by default.
        valid: `[segments, R]` bool, which rows of the result exist (see `segments`): the similarity
            of the others to everything is 0, and their index in `rows` may be -1.

    Returns:
        `[segments, R, R]` float32, symmetric, the same bits for a segment in any batch.
    """
    if features.shape[-1] <= MOST_CHANNELS and use_triton(features):
        return _cosine_gram_op(features, rows, valid)
    return cosine_gram_reference(features, rows, valid)


def cosine_gram_reference(
    features: torch.Tensor, rows: torch.Tensor | None = None, valid: torch.Tensor | None = None
) -> torch.Tensor:
    """Plain torch: integers in float64, so that the GEMM is exact. Blocks above the diagonal are
    copied from below it."""
    segments, available, width = features.shape
    count = available if rows is None else rows.shape[1]
    gram = features.new_empty((segments, count, count), dtype=torch.float32)
    per_slice = max(1, _WORK_BYTES // max(1, count * width * 8))
    for first in range(0, segments, per_slice):
        some = slice(first, first + per_slice)
        part, out = features[some], gram[some]
        if rows is not None:
            starts = torch.arange(part.shape[0], device=rows.device).unsqueeze(1) * available
            named = rows[some] if valid is None else rows[some].clamp_min(0)
            chosen = part.flatten(0, 1).index_select(0, (named + starts).flatten())
            part = chosen.view(part.shape[0], count, width)
        unit = unit_integers(part)
        if valid is not None:
            unit.masked_fill_(~valid[some].unsqueeze(2), math.nan)
        for begin in range(0, count, _BLOCK_ROWS):
            end = min(begin + _BLOCK_ROWS, count)
            out[:, begin:end, :end] = torch.bmm(unit[:, begin:end], unit[:, :end].mT)
            out[:, :begin, begin:end] = out[:, begin:end, :begin].mT
    # A row without direction has left NaN in its row and column, and nowhere else.
    return gram.mul_(2.0 ** (-2 * FRACTION_BITS)).nan_to_num_(0.0)


def unit_integers(rows: torch.Tensor) -> torch.Tensor:
    """Return the rows as float64 integers of norm `2**22`; NaN where a row has no direction."""
    unit = rows.to(torch.float64, copy=True)
    norm = torch.linalg.vector_norm(unit, dim=-1, keepdim=True)
    scale = (2.0**FRACTION_BITS / norm.clamp_min(_SMALLEST_NORM)).float().double()
    return unit.mul_(scale.where(norm.isfinite(), math.nan)).round_()


def _cosine_gram_fake(
    features: torch.Tensor, rows: torch.Tensor | None = None, valid: torch.Tensor | None = None
) -> torch.Tensor:
    count = features.shape[1] if rows is None else rows.shape[1]
    return features.new_empty((features.shape[0], count, count), dtype=torch.float32)


_cosine_gram_op = register_op(
    "cosine_gram",
    cosine_gram_triton,
    cosine_gram_reference,
    _cosine_gram_fake,
)


def _make_inputs(
    kind: str, size: int, dtype: torch.dtype, device: torch.device | str, large: bool = False
) -> dict[str, Any]:
    segments, width = (8, 1024) if large else (2, 56)
    rows = features(kind, (segments, size + 1, width), dtype, device)
    order = torch.arange(size, -1, -1, device=device)[:size].expand(segments, size)
    return {"features": rows, "rows": order}


SPECS = (
    Spec(
        name="cosine_gram",
        op=cosine_gram,
        reference=cosine_gram_reference,
        launcher=cosine_gram_triton,
        registered=_cosine_gram_op,
        make_inputs=_make_inputs,
        # Integers on both sides, rounded once.
        tolerance={torch.float32: EXACT, torch.float16: EXACT, torch.bfloat16: EXACT},
    ),
)
