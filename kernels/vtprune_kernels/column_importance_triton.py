"""Kernels of `column_importance`, which never form the attention map.

The first launch finds the log-sum-exp of each query's logits, unless the tower's attention kernel
saved it. The second recomputes the logits with keys in rows and sums their exponentials over the
queries in registers. The third averages the heads and adds up the patches of each token. Each adds
in an order fixed by one segment's size, without atomics. Query and key are read once for each block
(128) of the other; between the launches there are two floats for each patch and head.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import math
from typing import Any

import torch

from vtprune_kernels._triton import flags, next_power_of_2, tl, triton
from vtprune_kernels.attention_lse_triton import lse_kernel
from vtprune_kernels.attention_received_triton import received_kernel
from vtprune_kernels.attention_rows import bounds_of, exist
from vtprune_kernels.gpu import gpu_of
from vtprune_kernels.segments import end_of

__all__ = ["column_importance_triton"]


_HELD, _STREAMED, _WARPS = 128, 64, 8
"""Queries (first launch) or keys (second) a program holds, and those of the other kind that it
reads at a time. Not yet swept on a GPU."""

_FLOAT32_HELD, _FLOAT32_STREAMED, _FLOAT32_WARPS = 32, 32, 4
"""The same for float32, whose products run outside the tensor cores with operands in registers; the
tiles above spill 400 bytes a thread."""

_TOKENS = 64
"""Tokens of one program of the third launch. Not yet swept on a GPU."""


def column_importance_triton(
    query: torch.Tensor,
    key: torch.Tensor,
    num_heads: int,
    scale: float,
    cu_seqlens: torch.Tensor | None = None,
    max_seqlen: int | None = None,
    valid: torch.Tensor | None = None,
    lse: torch.Tensor | None = None,
    token_of_patch: torch.Tensor | None = None,
    patches_per_token: int = 1,
) -> torch.Tensor:
    """Launch the two or three kernels."""
    query = query if query.stride(-1) == 1 else query.contiguous()
    key = key if key.stride(-1) == 1 else key.contiguous()
    *images, patches, _ = query.shape
    importance = query.new_empty((*images, patches // patches_per_token), dtype=torch.float32)
    if importance.numel() == 0:
        return importance
    if cu_seqlens is None:
        segments, longest, _ = query.shape
        strides = (query.stride(0), query.stride(1), key.stride(0), key.stride(1))
    else:
        segments = cu_seqlens.shape[0] - 1
        longest = query.shape[0] if max_seqlen is None else max_seqlen
        strides = (0, query.stride(0), 0, key.stride(0))
    total = query.shape[:-1].numel()
    # Absent tensors need a pointer all the same; the flags say that it is not read.
    bounds = cu_seqlens if valid is None else end_of(valid)
    shape = {
        "bounds": query if bounds is None else bounds,
        "valid": flags(valid, query),
        "patches": query.shape[-2],
        "total": total,
        "PACKED": cu_seqlens is not None,
        "PADDED": valid is not None,
    }
    tiles = _tiles(query, query.shape[-1] // num_heads)
    grid = (triton.cdiv(longest, tiles["HELD"]), num_heads, segments)

    def attend(kernel: Any, *numbers: torch.Tensor) -> None:
        """Launch for each head and block of patches; `numbers` are one a head and patch."""
        to_base_2 = scale * math.log2(math.e)
        kernel[grid](query, key, *numbers, *strides, to_base_2, **shape, **tiles)

    received = query.new_empty((num_heads, total), dtype=torch.float32)
    if lse is None:
        lse = torch.empty_like(received)
        attend(lse_kernel, lse)
    elif cu_seqlens is None:
        lse = lse.transpose(0, 1)
    attend(received_kernel, lse.contiguous(), received)
    order = None if token_of_patch is None else token_of_patch.argsort(stable=True)
    _column_mean_kernel[(triton.cdiv(longest // patches_per_token, _TOKENS), segments)](
        received,
        received if order is None else order,
        query if valid is None else valid.sum(dim=1),
        importance,
        **shape,
        HEADS=num_heads,
        HAS_MAP=order is not None,
        PATCHES=patches_per_token,
        BLOCK=_TOKENS,
        num_warps=2,
    )
    return importance


def _tiles(query: torch.Tensor, head_size: int) -> dict[str, Any]:
    """Return what both attention kernels are compiled for."""
    wide = query.dtype == torch.float32
    return {
        "HEAD_SIZE": head_size,
        "BLOCK_HEAD": next_power_of_2(head_size),
        "HELD": _FLOAT32_HELD if wide else _HELD,
        "STREAMED": _FLOAT32_STREAMED if wide else _STREAMED,
        "UPCAST": gpu_of(query.device).interpreted,
        "num_warps": _FLOAT32_WARPS if wide else _WARPS,
        "num_stages": 2,
    }


@triton.jit(do_not_specialize=["patches", "total"])
def _column_mean_kernel(
    received,
    order,
    sizes,
    importance,
    bounds,
    valid,
    patches,
    total,
    PACKED: tl.constexpr,
    PADDED: tl.constexpr,
    HEADS: tl.constexpr,
    HAS_MAP: tl.constexpr,
    PATCHES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    segment = tl.program_id(1).to(tl.int64)
    start, size = bounds_of(bounds, segment, patches, PACKED, PADDED)
    token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if PACKED:
        inside = token < size // PATCHES
        begin = start.to(tl.int64)
        first_patch = begin * 0
    else:
        inside = token < patches // PATCHES
        begin = segment * patches
        first_patch = begin
    attention = tl.zeros([BLOCK], dtype=tl.float32)
    for i in tl.static_range(PATCHES):
        patch = token.to(tl.int64) * PATCHES + i
        if HAS_MAP:
            if PACKED:
                patch += start
            patch = tl.load(order + patch, mask=inside, other=0) + first_patch
        else:
            patch += begin
        real = inside & exist(valid, segment, patches, patch - begin, size, PADDED)
        for _ in range(HEADS):
            attention += tl.load(received + patch, mask=real, other=0.0)
            patch += total
    if PADDED:
        size = tl.load(sizes + segment).to(tl.int32)
    target = begin // PATCHES + token
    tl.store(importance + target, attention / (tl.maximum(size, 1) * HEADS), mask=inside)
