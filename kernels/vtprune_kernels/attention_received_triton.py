"""Kernel of the attention that each key receives, the second launch of `column_importance`.

A program holds a block of keys of one head in registers, runs over the segment's queries and adds
up exp(logit - log-sum-exp of the query). It reads the queries once for each block of keys and
writes one float32 for each key and head.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from vtprune_kernels._triton import tl, triton
from vtprune_kernels.attention_rows import (
    bounds_of,
    exist,
    first_channel,
    first_number,
    rows_of_head,
)

__all__ = ["received_kernel"]


@triton.jit(do_not_specialize=["patches", "total"])
def received_kernel(
    query,
    key,
    lse,
    received,
    query_image,
    query_patch,
    key_image,
    key_patch,
    scale,
    bounds,
    valid,
    patches,
    total,
    PACKED: tl.constexpr,
    PADDED: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    BLOCK_HEAD: tl.constexpr,
    HELD: tl.constexpr,
    STREAMED: tl.constexpr,
    UPCAST: tl.constexpr,
):
    block, head, segment = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    start, size = bounds_of(bounds, segment, patches, PACKED, PADDED)
    if block * HELD >= size:
        return
    column = block * HELD + tl.arange(0, HELD)
    begin_q = first_channel(segment, start, head, query_image, query_patch, HEAD_SIZE)
    begin_k = first_channel(segment, start, head, key_image, key_patch, HEAD_SIZE)
    begin = first_number(segment, start, head, patches, total, PACKED)
    exists = exist(valid, segment, patches, column, size, PADDED)
    held = rows_of_head(key, begin_k, key_patch, column, exists, HEAD_SIZE, BLOCK_HEAD, UPCAST)
    total_received = tl.zeros([HELD], dtype=tl.float32)
    for first in range(0, size, STREAMED):
        row = first + tl.arange(0, STREAMED)
        real = exist(valid, segment, patches, row, size, PADDED)
        queries = rows_of_head(
            query, begin_q, query_patch, row, real, HEAD_SIZE, BLOCK_HEAD, UPCAST
        )
        # An infinite denominator drops padding and rows past the end.
        denominator = tl.load(lse + begin + row, mask=real, other=float("inf"))
        logit = tl.dot(held, tl.trans(queries), input_precision="ieee") * scale
        # 1.442... = log2(e). Keys in rows, so the sum stays within a warp: [HELD, STREAMED].
        paid = tl.exp2(logit - (denominator * 1.4426950408889634)[None, :])
        total_received += tl.sum(paid, axis=1)
    tl.store(received + begin + column, total_received, mask=column < size)
