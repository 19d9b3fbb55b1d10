"""Kernels of `cls_importance`.

They read `key` once (1.2 MB for 577 tokens of 16 x 64 in bf16, against 10.7 MB for the map) and
pass 37 KB of logits an image through the L2 cache: one launch computes the logits of a block of
keys of one head, with that block's maximum and sum of exponentials; a second one combines the
blocks and averages the heads. Both add in an order fixed by the shape of one image, without
atomics, so an image scores the same in any batch.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch

from vtprune_kernels._triton import flags, next_power_of_2, size_class, tl, triton

__all__ = ["cls_importance_triton"]


_BLOCK_KEYS = 128
"""Keys of one program: 16 KB of bf16 at a head size of 64, 128 bytes in flight for each of its 128
threads, and 80 programs for one image of 577 tokens and 16 heads. Not yet swept on a GPU."""

_BLOCK_PATCHES = 64
"""Patches of one program of the second launch, which runs over the heads in order: 9 programs for
one image; larger blocks leave most of the GPU idle there. Not yet swept on a GPU."""


def cls_importance_triton(
    query: torch.Tensor,
    key: torch.Tensor,
    num_heads: int,
    scale: float,
    valid: torch.Tensor | None = None,
) -> torch.Tensor:
    """Launch the two kernels."""
    if query.stride(-1) != 1:
        query = query[:, :1].contiguous()
    if key.stride(-1) != 1:
        key = key.contiguous()
    images, tokens, channels = key.shape
    importance = key.new_empty((images, tokens - 1), dtype=torch.float32)
    if importance.numel() == 0:
        return importance
    blocks = triton.cdiv(tokens, _BLOCK_KEYS)
    logits = key.new_empty((images, num_heads, tokens), dtype=torch.float32)
    block_max = key.new_empty((images, num_heads, blocks), dtype=torch.float32)
    block_sum = torch.empty_like(block_max)
    head_size = channels // num_heads
    _cls_logits_kernel[(blocks, num_heads, images)](
        query,
        key,
        flags(valid, key),
        logits,
        block_max,
        block_sum,
        query.stride(0),
        key.stride(0),
        key.stride(1),
        tokens,
        blocks,
        scale,
        HAS_VALID=valid is not None,
        HEADS=num_heads,
        HEAD_SIZE=head_size,
        BLOCK_KEYS=_BLOCK_KEYS,
        BLOCK_HEAD=next_power_of_2(head_size),
        num_warps=4,
    )
    _cls_mean_kernel[(triton.cdiv(tokens - 1, _BLOCK_PATCHES), images)](
        logits,
        block_max,
        block_sum,
        importance,
        tokens,
        blocks,
        HEADS=num_heads,
        BLOCK_BLOCKS=size_class(blocks, least=32),
        BLOCK_PATCHES=_BLOCK_PATCHES,
        num_warps=2,
    )
    return importance


@triton.jit(do_not_specialize=["tokens", "blocks"])
def _cls_logits_kernel(
    query,
    key,
    valid,
    logits,
    block_max,
    block_sum,
    query_image,
    key_image,
    key_token,
    tokens,
    blocks,
    scale,
    HAS_VALID: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_HEAD: tl.constexpr,
):
    block, head, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    token = block * BLOCK_KEYS + tl.arange(0, BLOCK_KEYS)
    channel = tl.arange(0, BLOCK_HEAD)
    inside = token < tokens
    exists = inside
    if HAS_VALID:
        patch = valid + image * (tokens - 1) + token - 1
        exists = tl.load(patch, mask=inside & (token > 0), other=1) != 0
        exists = exists & inside
    has_channel = channel < HEAD_SIZE
    cls = tl.load(
        query + image * query_image + head * HEAD_SIZE + channel, mask=has_channel, other=0.0
    )  # [BLOCK_HEAD]
    keys = tl.load(
        key
        + image * key_image
        + token[:, None].to(tl.int64) * key_token
        + (head * HEAD_SIZE + channel)[None, :],
        mask=exists[:, None] & has_channel[None, :],
        other=0.0,
    )  # [BLOCK_KEYS, BLOCK_HEAD]
    logit = tl.sum(keys.to(tl.float32) * cls.to(tl.float32)[None, :], axis=1) * scale
    logit = tl.where(exists, logit, -float("inf"))
    highest = tl.max(logit, axis=0)
    # A block of padding alone has no maximum; it contributes 0 * exp(-inf).
    above = tl.where(highest == -float("inf"), 0.0, highest)
    row = image * HEADS + head
    tl.store(logits + row * tokens + token, logit, mask=inside)
    tl.store(block_max + row * blocks + block, highest)
    tl.store(block_sum + row * blocks + block, tl.sum(tl.exp(logit - above), axis=0))


@triton.jit(do_not_specialize=["tokens", "blocks"])
def _cls_mean_kernel(
    logits,
    block_max,
    block_sum,
    importance,
    tokens,
    blocks,
    HEADS: tl.constexpr,
    BLOCK_BLOCKS: tl.constexpr,
    BLOCK_PATCHES: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    patch = tl.program_id(0) * BLOCK_PATCHES + tl.arange(0, BLOCK_PATCHES)
    inside = patch < tokens - 1
    block = tl.arange(0, BLOCK_BLOCKS)
    total = tl.zeros([BLOCK_PATCHES], dtype=tl.float32)
    for head in range(HEADS):
        row = image * HEADS + head
        maxima = tl.load(block_max + row * blocks + block, mask=block < blocks, other=-float("inf"))
        highest = tl.max(maxima, axis=0)
        # One block after the other: the order must not depend on how much padding follows.
        denominator = 0.0
        for i in range(blocks):
            part = tl.exp(tl.load(block_max + row * blocks + i) - highest)
            denominator += tl.load(block_sum + row * blocks + i) * part
        logit = tl.load(logits + row * tokens + 1 + patch, mask=inside, other=-float("inf"))
        total += tl.exp(logit - highest) / denominator
    tl.store(importance + image * (tokens - 1) + patch, total / HEADS, mask=inside)
