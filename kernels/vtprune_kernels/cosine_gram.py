"""Cosine similarities of all pairs of rows, reproducible to the last bit.

Greedy selection is chaotic: a change of 1e-6 in one similarity reorders a list and ends in another
kept set. A floating-point GEMM makes such changes whenever the batch size, the tile size, the
number of threads or the device differ, because each adds the products in its own order. So the
similarity is *defined* in fixed point:

    unit[i]    = round(row[i] / |row[i]| * 2**22) / 2**22
    gram[i, j] = float32(sum_c unit[i, c] * unit[j, c])        the sum is exact, rounded once

Every product is a multiple of 2**-44 and every partial sum is below 2, so a float64 accumulator
(53 bits) never rounds: any order of addition, any blocking, any batch gives the same bits. The
rounding of a coordinate is at most 2**-23, below that of float32 for coordinates over 1/4, and
moves a cosine by about 1e-7 (measured on CLIP-like features), as a float32 GEMM does itself.
On tensor cores the same integers are two fp16 limbs of 11 bits each.

Rows of zeros have no direction; their similarity to everything, themselves included, is 0.
"""

from __future__ import annotations

import torch

__all__ = ["cosine_gram"]

_FRACTION_BITS = 22

_WORK_BYTES = 1 << 24
"""Float64 workspace per slice of images. Above about 32 MB glibc maps fresh pages for every call,
and faulting them in takes longer than the GEMM (8 images of 544 x 1024 on two EPYC cores: 108 ms of
faults against 48 ms of GEMM; `benchmarks/selection.py`)."""


def cosine_gram(features: torch.Tensor) -> torch.Tensor:
    """Return the cosine similarity of every pair of rows of each segment.

    Args:
        features: `[segments, N, D]`, any float dtype.

    Returns:
        `[segments, N, N]` float32, symmetric, the same bits for a segment in any batch.
    """
    return cosine_gram_reference(features)


def cosine_gram_reference(features: torch.Tensor) -> torch.Tensor:
    """Plain torch: integers in float64, so that the GEMM is exact."""
    features = features.detach()  # choosing is not differentiable
    segments, rows, width = features.shape
    gram = features.new_empty((segments, rows, rows), dtype=torch.float32)
    per_slice = max(1, _WORK_BYTES // max(1, rows * width * 8))
    for part, out in zip(features.split(per_slice), gram.split(per_slice), strict=True):
        unit = part.double()
        norm = unit.square().sum(dim=-1, keepdim=True).sqrt_()
        unit.mul_(2.0**_FRACTION_BITS / norm.clamp_min_(torch.finfo(torch.float32).tiny)).round_()
        out.copy_(torch.bmm(unit, unit.mT).mul_(2.0 ** (-2 * _FRACTION_BITS)))
    return gram
