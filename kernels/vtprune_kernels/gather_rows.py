"""Rows of each segment by index, for several tensors at once.

    out[t][s, i] = tensors[t][s, kept[s, i]]          zeros where kept[s, i] is -1

The projector reads the result, so it works on the kept tokens only; with `out` the rows go straight
into the buffer that it reads. Features, positions and DeepStack levels differ in width and dtype
but share the indices: one launch copies a kept row of up to four tensors, each read and written
once. Nothing is computed, so the copies are exact.
"""

from __future__ import annotations

from typing import Any

import torch

from vtprune_kernels._triton import register_op, use_triton
from vtprune_kernels.gather_rows_triton import gather_rows_triton
from vtprune_kernels.spec import EXACT, Spec, features

__all__ = ["SPECS", "gather_rows"]


def gather_rows(
    tensors: list[torch.Tensor],
    kept: torch.Tensor,
    out: list[torch.Tensor] | None = None,
    cu_seqlens: torch.Tensor | None = None,
    cu_kept: torch.Tensor | None = None,
) -> list[torch.Tensor]:
    """Return `tensor[s, kept[s]]` for every tensor and segment.

    Args:
        tensors: each `[segments, N, ...]`, any dtype; trailing shapes may differ. `[total, ...]`
            with `cu_seqlens`.
        kept: `[segments, k]` int64, each in 0..N-1, or -1 for a row of zeros; not checked on a GPU.
        out: where to write, contiguous `[segments, k, ...]` for each tensor; new ones by default.
            `[total kept, ...]` with `cu_kept`, which requires `out`, because only the caller knows
            the total on the host.
        cu_seqlens: `[segments + 1]` integers, where each segment starts in packed tensors.
        cu_kept: `[segments + 1]` integers, where the kept rows of each segment start in packed
            buffers; the difference, at most k, says how many there are.

    Returns:
        `out`, or one contiguous `[segments, k, ...]` for each tensor, in order.

    Raises:
        ValueError: a buffer in `out` does not fit, or is missing.
    """
    skip = 2 if cu_seqlens is None else 1
    if out is None:
        if cu_kept is not None:
            raise ValueError("cu_kept packs the rows into buffers that the caller gives: out")
        out = [tensor.new_empty((*kept.shape, *tensor.shape[skip:])) for tensor in tensors]
    for tensor, buffer in zip(tensors, out, strict=True):
        leading = kept.shape if cu_kept is None else buffer.shape[:1]
        fits = buffer.shape == (*leading, *tensor.shape[skip:]) and buffer.dtype == tensor.dtype
        if not fits or not buffer.is_contiguous():
            raise ValueError(f"buffer {list(buffer.shape)} for rows of {list(tensor.shape)}")
    if use_triton(kept, *tensors):
        _gather_rows_op(tensors, kept, out, cu_seqlens, cu_kept)
        return out
    return gather_rows_reference(tensors, kept, out, cu_seqlens, cu_kept)


def gather_rows_reference(
    tensors: list[torch.Tensor],
    kept: torch.Tensor,
    out: list[torch.Tensor],
    cu_seqlens: torch.Tensor | None = None,
    cu_kept: torch.Tensor | None = None,
) -> list[torch.Tensor]:
    """Plain torch. Indexing reads only the kept rows, even of a tensor that is not contiguous
    (features behind a class token), all of which flattening for `index_select` would copy."""
    if not out:
        return out
    segment, index = torch.arange(len(kept), device=kept.device).unsqueeze(1), kept
    if cu_kept is not None:
        place = torch.arange(len(out[0]), device=kept.device)
        segment = torch.bucketize(place, cu_kept[1:].long(), right=True)
        index = kept[segment, place - cu_kept[segment]]
    real, index = index >= 0, index.clamp_min(0)
    for tensor, buffer in zip(tensors, out, strict=True):
        if cu_seqlens is None:
            rows = tensor[segment, index]
        else:
            rows = tensor[(cu_seqlens[segment] + index).clamp_max(len(tensor) - 1)]
        absent = ~real.view(*real.shape, *[1] * (rows.ndim - real.ndim))
        buffer.copy_(rows.masked_fill_(absent, 0))
    return out


def _run_registered(
    tensors: list[torch.Tensor],
    kept: torch.Tensor,
    out: list[torch.Tensor],
    cu_seqlens: torch.Tensor | None = None,
    cu_kept: torch.Tensor | None = None,
) -> None:
    gather_rows_triton(tensors, kept, out, cu_seqlens, cu_kept)


def _reference_registered(
    tensors: list[torch.Tensor],
    kept: torch.Tensor,
    out: list[torch.Tensor],
    cu_seqlens: torch.Tensor | None = None,
    cu_kept: torch.Tensor | None = None,
) -> None:
    gather_rows_reference(tensors, kept, out, cu_seqlens, cu_kept)


def _gather_rows_fake(
    tensors: list[torch.Tensor],
    kept: torch.Tensor,
    out: list[torch.Tensor],
    cu_seqlens: torch.Tensor | None = None,
    cu_kept: torch.Tensor | None = None,
) -> None:
    return None


_gather_rows_op = register_op(
    "gather_rows",
    _run_registered,
    _reference_registered,
    _gather_rows_fake,
    writes=("out",),
)


def _make_inputs(
    kind: str, size: int, dtype: torch.dtype, device: torch.device | str, large: bool = False
) -> dict[str, Any]:
    segments, width = (8, 1024) if large else (3, 40)
    rows = features(kind, (segments, size, width), dtype, device)
    levels = features(kind, (segments, size, 3, width), dtype, device)[:, :, 1]
    positions = torch.arange(segments * size * 3, device=device).view(segments, size, 3)
    generator = torch.Generator().manual_seed(size)
    kept = torch.rand((segments, size), generator=generator).argsort(dim=1)
    kept = kept[:, : size // 9 if large else max(1, min(size // 9, 30))].to(device)
    tensors = [rows, levels, positions]
    out = [tensor.new_empty((*kept.shape, *tensor.shape[2:])) for tensor in tensors]
    return {"tensors": tensors, "kept": kept, "out": out}


SPECS = (
    Spec(
        name="gather_rows",
        op=gather_rows,
        reference=gather_rows_reference,
        launcher=gather_rows_triton,
        registered=_gather_rows_op,
        make_inputs=_make_inputs,
        # A copy.
        tolerance={torch.float32: EXACT, torch.float16: EXACT, torch.bfloat16: EXACT},
    ),
)
