"""Device functions that read the queries or keys of one segment, packed or padded."""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from vtprune_kernels._triton import tl, triton

__all__ = ["bounds_of", "exist", "first_channel", "first_number", "rows_of_head"]


@triton.jit
def bounds_of(bounds, segment, patches, PACKED: tl.constexpr, PADDED: tl.constexpr):
    """Where a segment starts and how long it is, padding at its end excluded."""
    start = 0
    size = patches
    if PACKED:
        start = tl.load(bounds + segment).to(tl.int32)
        size = tl.load(bounds + segment + 1).to(tl.int32) - start
    elif PADDED:
        size = tl.load(bounds + segment).to(tl.int32)
    return start, size


@triton.jit
def first_channel(segment, start, head, image, patch, HEAD_SIZE: tl.constexpr):
    """Offset of one head's channels of a segment's first patch; `image` and `patch` are strides."""
    return segment * image + start.to(tl.int64) * patch + head * HEAD_SIZE


@triton.jit
def first_number(segment, start, head, patches, total, PACKED: tl.constexpr):
    """Offset of a segment's first patch where there is one number a head and patch."""
    begin = head.to(tl.int64) * total + start
    if not PACKED:
        begin += segment * patches
    return begin


@triton.jit
def exist(valid, segment, patches, row, size, PADDED: tl.constexpr):
    """Which patches of a block are real."""
    exists = row < size
    if PADDED:
        exists = tl.load(valid + segment * patches + row, mask=exists, other=0) != 0
    return exists


@triton.jit
def rows_of_head(pointer, begin, stride, row, exists, HEAD_SIZE, BLOCK_HEAD, UPCAST):
    """Load one head's channels of some patches, zeros outside: `[rows, BLOCK_HEAD]`."""
    channel = tl.arange(0, BLOCK_HEAD)
    value = tl.load(
        pointer + begin + row[:, None].to(tl.int64) * stride + channel[None, :],
        mask=exists[:, None] & (channel < HEAD_SIZE)[None, :],
        other=0.0,
    )
    return value.to(tl.float32) if UPCAST else value
