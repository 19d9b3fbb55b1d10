"""Kernel of the log-sum-exp of each query's logits, the first launch of `column_importance`.

A program holds a block of queries of one head in registers and runs over the segment's keys with a
running maximum and sum, so that no logit is stored. It reads the keys once for each block of
queries and writes one float32 for each query and head.
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

__all__ = ["lse_kernel"]


@triton.jit(do_not_specialize=["patches", "total"])
def lse_kernel(
    query,
    key,
    lse,
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
    row = block * HELD + tl.arange(0, HELD)
    begin_q = first_channel(segment, start, head, query_image, query_patch, HEAD_SIZE)
    begin_k = first_channel(segment, start, head, key_image, key_patch, HEAD_SIZE)
    begin = first_number(segment, start, head, patches, total, PACKED)
    exists = exist(valid, segment, patches, row, size, PADDED)
    held = rows_of_head(query, begin_q, query_patch, row, exists, HEAD_SIZE, BLOCK_HEAD, UPCAST)
    highest = tl.full([HELD], -float("inf"), dtype=tl.float32)
    denominator = tl.zeros([HELD], dtype=tl.float32)
    for first in range(0, size, STREAMED):
        column = first + tl.arange(0, STREAMED)
        real = exist(valid, segment, patches, column, size, PADDED)
        keys = rows_of_head(key, begin_k, key_patch, column, real, HEAD_SIZE, BLOCK_HEAD, UPCAST)
        logit = tl.dot(held, tl.trans(keys), input_precision="ieee") * scale
        logit = tl.where(real[None, :], logit, -float("inf"))  # [HELD, STREAMED]
        higher = tl.maximum(highest, tl.max(logit, axis=1))
        # Only padding so far: nothing to add, and no maximum to subtract.
        above = tl.where(higher == -float("inf"), 0.0, higher)
        denominator *= tl.exp2(highest - above)
        denominator += tl.sum(tl.exp2(logit - above[:, None]), axis=1)
        highest = higher
    # 0.693... = log(2): stored in base e, as attention kernels do.
    result = (highest + tl.log2(denominator)) * 0.6931471805599453
    tl.store(lse + begin + row, result, mask=row < size)
