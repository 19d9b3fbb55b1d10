"""Kernel of `gather_rows`: one launch for up to four tensors, each row read and written once."""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch

from vtprune_kernels._triton import tl, triton

__all__ = ["gather_rows_triton"]


_BLOCK_COLUMNS = 1024
"""Elements of a row copied at a time: 16 bytes of bf16 for each of 128 threads. Not yet swept on a
GPU."""

_TENSORS_PER_LAUNCH = 4
"""Qwen3-VL needs the most: features and three DeepStack levels."""


def gather_rows_triton(
    tensors: list[torch.Tensor],
    kept: torch.Tensor,
    out: list[torch.Tensor],
    cu_seqlens: torch.Tensor | None = None,
    cu_kept: torch.Tensor | None = None,
) -> list[torch.Tensor]:
    """Launch once for every four tensors."""
    for first in range(0, len(tensors), _TENSORS_PER_LAUNCH):
        some = slice(first, first + _TENSORS_PER_LAUNCH)
        _launch(tensors[some], kept, out[some], cu_seqlens, cu_kept)
    return out


def _launch(
    tensors: list[torch.Tensor],
    kept: torch.Tensor,
    out: list[torch.Tensor],
    cu_seqlens: torch.Tensor | None,
    cu_kept: torch.Tensor | None,
) -> None:
    segments, k = kept.shape
    slots: list[torch.Tensor | int] = []
    for tensor, buffer in zip(tensors, out, strict=True):
        flat = (tensor if cu_seqlens is None else tensor.unsqueeze(0)).unsqueeze(-1).flatten(2)
        if flat.stride(2) != 1:
            flat = flat.contiguous()
        if flat.dtype == torch.bool:
            flat, buffer = flat.view(torch.uint8), buffer.view(torch.uint8)
        slots += [flat, buffer, flat.stride(0), flat.stride(1), flat.shape[2]]
    slots += slots[:5] * (_TENSORS_PER_LAUNCH - len(tensors))  # never looked at
    if segments and k:
        _gather_rows_kernel[(segments * k, len(tensors))](
            kept,
            kept if cu_seqlens is None else cu_seqlens.contiguous(),
            kept if cu_kept is None else cu_kept.contiguous(),
            kept.stride(0),
            kept.stride(1),
            k,
            *slots,
            PACKED=cu_seqlens is not None,
            PACKS=cu_kept is not None,
            BLOCK=_BLOCK_COLUMNS,
            num_warps=4,
        )


@triton.jit
def _copy_row(source, target, source_segment, source_row, width, segment, row, i, BLOCK):
    begin = source + segment * source_segment + row * source_row
    end = tl.where(row >= 0, width, 0)  # nothing of an absent row is read
    for start in range(0, width, BLOCK):
        column = start + tl.arange(0, BLOCK)
        value = tl.load(begin + column, mask=column < end, other=0)
        tl.store(target + i * width + column, value, mask=column < width)


@triton.jit(
    do_not_specialize=["kept_segment", "kept_column", "k"],
    do_not_specialize_on_alignment=["kept", "cu_seqlens", "cu_kept"],  # they may begin anywhere
)
def _gather_rows_kernel(
    kept,
    cu_seqlens,
    cu_kept,
    kept_segment,
    kept_column,
    k,
    source0,
    target0,
    segment0,
    row0,
    width0,
    source1,
    target1,
    segment1,
    row1,
    width1,
    source2,
    target2,
    segment2,
    row2,
    width2,
    source3,
    target3,
    segment3,
    row3,
    width3,
    PACKED: tl.constexpr,
    PACKS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64)
    tensor = tl.program_id(1)
    segment = i // k
    row = tl.load(kept + segment * kept_segment + (i % k) * kept_column).to(tl.int64)
    if PACKS:
        place = tl.load(cu_kept + segment).to(tl.int64) + i % k
        if place >= tl.load(cu_kept + segment + 1).to(tl.int64):
            return
        i = place
    if PACKED:
        if row >= 0:
            row += tl.load(cu_seqlens + segment).to(tl.int64)
        segment = segment * 0
    if tensor == 0:
        _copy_row(source0, target0, segment0, row0, width0, segment, row, i, BLOCK)
    elif tensor == 1:
        _copy_row(source1, target1, segment1, row1, width1, segment, row, i, BLOCK)
    elif tensor == 2:
        _copy_row(source2, target2, segment2, row2, width2, segment, row, i, BLOCK)
    else:
        _copy_row(source3, target3, segment3, row3, width3, segment, row, i, BLOCK)
