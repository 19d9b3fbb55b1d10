"""Rows of each segment by index, for several tensors at once.

    out[t][s, i] = tensors[t][s, kept[s, i]]

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

__all__ = ["SPEC", "gather_rows"]


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


def _run_registered(
    tensors: list[torch.Tensor], kept: torch.Tensor, out: list[torch.Tensor]
) -> None:
    gather_rows_triton(tensors, kept, out)


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
    launcher=gather_rows_triton,
    registered=_gather_rows_op,
    make_inputs=_make_inputs,
    # A copy.
    tolerance={torch.float32: EXACT, torch.float16: EXACT, torch.bfloat16: EXACT},
)
