"""Rows of each segment by index, for several tensors at once.

    out[t][s, i] = tensors[t][s, kept[s, i]]

The projector reads the result, so it works on the kept tokens only; with `out` the rows go straight
into the buffer that it reads. Features, positions and DeepStack levels differ in width and dtype
but share the indices: one launch copies a kept row of up to four tensors, each read and written
once. Nothing is computed, so the copies are exact.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import Any

import torch

from vtprune_kernels._triton import register_op, tl, triton, use_triton
from vtprune_kernels.spec import EXACT, Spec, features

__all__ = ["SPEC", "gather_rows"]

_BLOCK_COLUMNS = 1024
"""Elements of a row copied at a time: 16 bytes of bf16 for each of 128 threads. Not yet swept on a
GPU."""

_TENSORS_PER_LAUNCH = 4
"""Qwen3-VL has the most: features and three DeepStack levels."""


def gather_rows(
    tensors: list[torch.Tensor], kept: torch.Tensor, out: list[torch.Tensor] | None = None
) -> list[torch.Tensor]:
    """Return `tensor[s, kept[s]]` for every tensor and segment.

    Args:
        tensors: each `[segments, N, ...]`, any dtype; trailing shapes may differ.
        kept: `[segments, k]` int64, each in 0..N-1; not checked on a GPU.
        out: where to write, contiguous `[segments, k, ...]` for each tensor; new ones by default.

    Returns:
        `out`, or one contiguous `[segments, k, ...]` for each tensor, in order.

    Raises:
        ValueError: a buffer in `out` does not fit.
    """
    if out is None:
        out = [tensor.new_empty((*kept.shape, *tensor.shape[2:])) for tensor in tensors]
    for tensor, buffer in zip(tensors, out, strict=True):
        fits = buffer.shape == (*kept.shape, *tensor.shape[2:]) and buffer.dtype == tensor.dtype
        if not fits or not buffer.is_contiguous():
            raise ValueError(f"buffer {list(buffer.shape)} for rows of {list(tensor.shape)}")
    if use_triton(kept, *tensors):
        _gather_rows_op(tensors, kept, out)
        return out
    return gather_rows_reference(tensors, kept, out)


def gather_rows_reference(
    tensors: list[torch.Tensor], kept: torch.Tensor, out: list[torch.Tensor]
) -> list[torch.Tensor]:
    """Plain torch. Indexing reads the kept rows alone, also of a tensor that is no contiguous block
    (features behind a class token), which flattening for `index_select` would copy as a whole."""
    segment = torch.arange(kept.shape[0], device=kept.device).unsqueeze(1)
    for tensor, buffer in zip(tensors, out, strict=True):
        buffer.copy_(tensor[segment, kept])
    return out


def _gather_rows_triton(
    tensors: list[torch.Tensor], kept: torch.Tensor, out: list[torch.Tensor]
) -> list[torch.Tensor]:
    """Launch once for every four tensors."""
    for first in range(0, len(tensors), _TENSORS_PER_LAUNCH):
        _launch(
            tensors[first : first + _TENSORS_PER_LAUNCH],
            kept,
            out[first : first + _TENSORS_PER_LAUNCH],
        )
    return out


def _launch(tensors: list[torch.Tensor], kept: torch.Tensor, out: list[torch.Tensor]) -> None:
    segments, k = kept.shape
    slots: list[torch.Tensor | int] = []
    for tensor, buffer in zip(tensors, out, strict=True):
        flat = tensor.unsqueeze(-1).flatten(2)
        if flat.stride(2) != 1:
            flat = flat.contiguous()
        if flat.dtype == torch.bool:
            flat, buffer = flat.view(torch.uint8), buffer.view(torch.uint8)
        slots += [flat, buffer, flat.stride(0), flat.stride(1), flat.shape[2]]
    slots += slots[:5] * (_TENSORS_PER_LAUNCH - len(tensors))  # never looked at
    if segments and k:
        _gather_rows_kernel[(segments * k, len(tensors))](
            kept,
            kept.stride(0),
            kept.stride(1),
            k,
            *slots,
            BLOCK=_BLOCK_COLUMNS,
            num_warps=4,
        )


def _run_registered(
    tensors: list[torch.Tensor], kept: torch.Tensor, out: list[torch.Tensor]
) -> None:
    _gather_rows_triton(tensors, kept, out)


def _reference_registered(
    tensors: list[torch.Tensor], kept: torch.Tensor, out: list[torch.Tensor]
) -> None:
    gather_rows_reference(tensors, kept, out)


def _gather_rows_fake(
    tensors: list[torch.Tensor], kept: torch.Tensor, out: list[torch.Tensor]
) -> None:
    return None


_gather_rows_op = register_op(
    "gather_rows(Tensor[] tensors, Tensor kept, Tensor(a!)[] out) -> ()",
    _run_registered,
    _reference_registered,
    _gather_rows_fake,
)


@triton.jit
def _copy_row(source, target, source_segment, source_row, width, segment, row, i, BLOCK):
    begin = source + segment * source_segment + row * source_row
    for start in range(0, width, BLOCK):
        column = start + tl.arange(0, BLOCK)
        value = tl.load(begin + column, mask=column < width)
        tl.store(target + i * width + column, value, mask=column < width)


@triton.jit
def _gather_rows_kernel(
    kept,
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
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64)
    tensor = tl.program_id(1)
    segment = i // k
    row = tl.load(kept + segment * kept_segment + (i % k) * kept_column).to(tl.int64)
    if tensor == 0:
        _copy_row(source0, target0, segment0, row0, width0, segment, row, i, BLOCK)
    elif tensor == 1:
        _copy_row(source1, target1, segment1, row1, width1, segment, row, i, BLOCK)
    elif tensor == 2:
        _copy_row(source2, target2, segment2, row2, width2, segment, row, i, BLOCK)
    else:
        _copy_row(source3, target3, segment3, row3, width3, segment, row, i, BLOCK)


def _make_inputs(
    kind: str, size: int, dtype: torch.dtype, device: torch.device | str, large: bool = False
) -> dict[str, Any]:
    segments, width = (8, 1024) if large else (3, 40)
    rows = features(kind, (segments, size, width), dtype, device)
    levels = features(kind, (segments, size, 3, width), dtype, device)[:, :, 1]
    positions = torch.arange(segments * size * 3, device=device).view(segments, size, 3)
    generator = torch.Generator().manual_seed(size)
    kept = torch.rand((segments, size), generator=generator).argsort(dim=1)
    kept = kept[:, : max(1, size // 9)].to(device)
    tensors = [rows, levels, positions]
    out = [tensor.new_empty((*kept.shape, *tensor.shape[2:])) for tensor in tensors]
    return {"tensors": tensors, "kept": kept, "out": out}


SPEC = Spec(
    name="gather_rows",
    op=gather_rows,
    reference=gather_rows_reference,
    launcher=_gather_rows_triton,
    registered=_gather_rows_op,
    make_inputs=_make_inputs,
    # A copy.
    tolerance={torch.float32: EXACT, torch.float16: EXACT, torch.bfloat16: EXACT},
)
