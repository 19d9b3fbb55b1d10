"""Segments of unequal length in one call: the operators' common convention, and helpers for it.

A segment is an image, a crop or a frame. A batch of them is padded to the longest one, `[segments,
N, ...]`, and two optional tensors on the same device say what is real, so that the host waits for
nothing:

    valid     [segments, N] bool: which rows exist. Padding need not be at the end: the borders that
              LLaVA-NeXT adds around an image lie on any side of its crops. What padding contains,
              NaN included, changes nothing.
    counts    [segments] integers: how many of `keep` (or k) rows a segment keeps.

Segment s then keeps min(keep, counts[s], rows of s that exist), the same rows as alone and without
padding: ascending indices, filled up with -1 to `keep`, which is one number for all segments, the
width of the result. `gather_rows` turns -1 into a row of zeros, or packs the kept rows without any.
Where padding would be large, as between Qwen's images of different sizes, some operators take
packed tensors instead, with `cu_seqlens`.

Without `valid` and `counts`, all rows exist and each segment keeps `keep`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

__all__ = ["ABSENT", "each_alone", "end_of", "kept_of"]

ABSENT = -1
"""Fills the result of a segment that keeps fewer rows than the others."""


def kept_of(
    keep: int, segments: int, valid: torch.Tensor | None, counts: torch.Tensor | None
) -> torch.Tensor:
    """Return `[segments]` int64, how many rows each segment keeps."""
    limits = [limit for limit in (valid, counts) if limit is not None]
    kept = torch.full((segments,), keep, device=limits[0].device)
    if valid is not None:
        kept = torch.minimum(kept, valid.sum(dim=1))
    if counts is not None:
        kept = torch.minimum(kept, counts.clamp_min(0))
    return kept


def end_of(valid: torch.Tensor) -> torch.Tensor:
    """Return `[segments]` int32: one past the last row that exists, without a host sync."""
    place = torch.arange(1, valid.shape[1] + 1, device=valid.device, dtype=torch.int32)
    return (place * valid).amax(dim=1) if valid.shape[1] else valid.sum(dim=1, dtype=torch.int32)


def each_alone(
    select: Callable[..., torch.Tensor],
    gram: torch.Tensor,
    keep: int,
    valid: torch.Tensor | None,
    counts: torch.Tensor | None,
    *rowwise: torch.Tensor | None,
) -> torch.Tensor:
    """Return `[segments, keep]`: what `select` keeps of each segment without padding, of those that
    are alike in one call.

    Args:
        select: called with `[segments, n, n]` of the Gram, how many to keep, and `rowwise` tensors.
        gram: `[segments, R, R]`.
        keep: width of the result.
        valid: which rows exist.
        counts: how many each segment keeps.
        rowwise: `[segments, R]` tensors that go with the rows, or None.
    """
    kept = torch.full((len(gram), keep), ABSENT, device=gram.device)
    for alike, number in _alike(kept_of(keep, len(gram), valid, counts).tolist(), valid):
        if valid is None:
            real = torch.arange(gram.shape[1], device=gram.device)
        else:
            real = valid[alike[0]].nonzero().squeeze(1)
        alone = gram[alike][:, real][:, :, real]
        with_rows = [None if each is None else each[alike][:, real] for each in rowwise]
        kept[alike, :number] = real[select(alone, number, *with_rows)]
    return kept


def _alike(room: list[int], valid: torch.Tensor | None) -> list[tuple[list[int], int]]:
    """Return the segments that keep as many of the same rows, and how many that is."""
    alike: dict[tuple[int, bytes], list[int]] = {}
    for segment, number in enumerate(room):
        rows = b"" if valid is None else valid[segment].cpu().numpy().tobytes()
        alike.setdefault((number, rows), []).append(segment)
    return [(segments, number) for (number, _), segments in alike.items()]
