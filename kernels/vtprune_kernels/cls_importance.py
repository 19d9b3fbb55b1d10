"""Importance of each patch: the attention that the class token pays to it.

For one image with a class token at position 0 and patches 1..N, over the heads h,

    importance[j] = mean_h softmax_t(scale * q[h, 0] . k[h, t])[1 + j],   t = 0..N, j = 0..N-1

The softmax runs over all N+1 keys and is sliced afterwards; taking it over the patches alone would
reweight the heads by 1 - p_cls and change the ranking. Only the class row is computed: N+1 logits a
head instead of an (N+1) x (N+1) map.

The kernels read `key` once (1.2 MB for 577 tokens of 16 x 64 in bf16, against 10.7 MB for the map)
and pass 37 KB of logits an image through the L2 cache: one launch computes the logits of a block of
keys of one head, with that block's maximum and sum of exponentials; a second one combines the
blocks and averages the heads. Both add in an order fixed by the shape of one image, without
atomics, so an image scores the same in any batch.

Source: VisPruner (arXiv 2412.01818), which reads the same row from the full map.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import Any

import torch

from vtprune_kernels._triton import next_power_of_2, register_op, tl, triton, use_triton
from vtprune_kernels.spec import Spec, features

__all__ = ["SPEC", "cls_importance"]

_BLOCK_KEYS = 128
"""Keys of one program: 16 KB of bf16 at a head size of 64, 128 bytes in flight for each of its 128
threads, and 80 programs for one image of 577 tokens and 16 heads. Not yet swept on a GPU."""

_BLOCK_PATCHES = 64
"""Patches of one program of the second launch, which runs over the heads in order: 9 programs for
one image; larger blocks leave most of the GPU idle there. Not yet swept on a GPU."""


def cls_importance(
    query: torch.Tensor, key: torch.Tensor, num_heads: int, scale: float
) -> torch.Tensor:
    """Return the class token's attention to the patches, mean over heads.

    Args:
        query: `[images, 1 + N, num_heads * head_size]`, any float dtype, class token first.
        key: same shape as `query`.
        num_heads: heads held here. Under tensor parallelism that is a rank's share; the mean over
            ranks of the results is then the mean over all heads.
        scale: factor on the logits, usually `head_size ** -0.5`.

    Returns:
        `[images, N]` float32. Rows sum to at most 1 (the class token's own share is cut off).

    Raises:
        ValueError: the shapes differ, or `num_heads` does not divide the channels.
    """
    if query.shape != key.shape or query.ndim != 3 or query.shape[-1] % num_heads:
        raise ValueError(f"shapes {list(query.shape)}, {list(key.shape)} with {num_heads} heads")
    if use_triton(query, key):
        return _cls_importance_op(query, key, num_heads, scale)
    return cls_importance_reference(query, key, num_heads, scale)


def cls_importance_reference(
    query: torch.Tensor, key: torch.Tensor, num_heads: int, scale: float
) -> torch.Tensor:
    """Plain torch. Multiply and sum instead of a GEMM: the sum over one head's 64 or so channels
    has one order whatever the number of images, so an image scores the same in any batch."""
    images, tokens, _ = query.shape
    cls = query[:, :1].reshape(images, 1, num_heads, -1).float()
    keys = key.reshape(images, tokens, num_heads, -1).float()
    logits = (keys * cls).sum(-1) * scale
    return logits.softmax(dim=1).mean(dim=2)[:, 1:].contiguous()


def _cls_importance_triton(
    query: torch.Tensor, key: torch.Tensor, num_heads: int, scale: float
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
        logits,
        block_max,
        block_sum,
        query.stride(0),
        key.stride(0),
        key.stride(1),
        tokens,
        blocks,
        scale,
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
        BLOCK_BLOCKS=next_power_of_2(blocks),
        BLOCK_PATCHES=_BLOCK_PATCHES,
        num_warps=2,
    )
    return importance


def _cls_importance_fake(
    query: torch.Tensor, key: torch.Tensor, num_heads: int, scale: float
) -> torch.Tensor:
    return key.new_empty((key.shape[0], key.shape[1] - 1), dtype=torch.float32)


_cls_importance_op = register_op(
    "cls_importance(Tensor query, Tensor key, int num_heads, float scale) -> Tensor",
    _cls_importance_triton,
    cls_importance_reference,
    _cls_importance_fake,
)


@triton.jit
def _cls_logits_kernel(
    query,
    key,
    logits,
    block_max,
    block_sum,
    query_image,
    key_image,
    key_token,
    tokens,
    blocks,
    scale,
    HEADS: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_HEAD: tl.constexpr,
):
    block, head, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    token = block * BLOCK_KEYS + tl.arange(0, BLOCK_KEYS)
    channel = tl.arange(0, BLOCK_HEAD)
    inside = token < tokens
    has_channel = channel < HEAD_SIZE
    cls = tl.load(
        query + image * query_image + head * HEAD_SIZE + channel, mask=has_channel, other=0.0
    )  # [BLOCK_HEAD]
    keys = tl.load(
        key
        + image * key_image
        + token[:, None].to(tl.int64) * key_token
        + (head * HEAD_SIZE + channel)[None, :],
        mask=inside[:, None] & has_channel[None, :],
        other=0.0,
    )  # [BLOCK_KEYS, BLOCK_HEAD]
    logit = tl.sum(keys.to(tl.float32) * cls.to(tl.float32)[None, :], axis=1) * scale
    logit = tl.where(inside, logit, -float("inf"))
    highest = tl.max(logit, axis=0)
    row = image * HEADS + head
    tl.store(logits + row * tokens + token, logit, mask=inside)
    tl.store(block_max + row * blocks + block, highest)
    tl.store(block_sum + row * blocks + block, tl.sum(tl.exp(logit - highest), axis=0))


@triton.jit
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
        sums = tl.load(block_sum + row * blocks + block, mask=block < blocks, other=0.0)
        highest = tl.max(maxima, axis=0)
        denominator = tl.sum(sums * tl.exp(maxima - highest), axis=0)
        logit = tl.load(logits + row * tokens + 1 + patch, mask=inside, other=-float("inf"))
        total += tl.exp(logit - highest) / denominator
    tl.store(importance + image * (tokens - 1) + patch, total / HEADS, mask=inside)


def _make_inputs(
    kind: str, size: int, dtype: torch.dtype, device: torch.device | str, large: bool = False
) -> dict[str, Any]:
    images, heads, head_size = (8, 16, 64) if large else (2, 3, 72)
    # Query, key and value interleaved as a fused projection leaves them: the strides are not those
    # of a tensor of their own.
    fused = features(kind, (images, 1 + size, 3 * heads * head_size), dtype, device)
    query, key, _ = fused.chunk(3, dim=-1)
    return {"query": query, "key": key, "num_heads": heads, "scale": head_size**-0.5}


SPEC = Spec(
    name="cls_importance",
    op=cls_importance,
    reference=cls_importance_reference,
    launcher=_cls_importance_triton,
    registered=_cls_importance_op,
    make_inputs=_make_inputs,
    # Products and sums are float32 for every input dtype. Logits of a few units carry an error of
    # some 1e-6 from the order of 128 additions, which is a relative error of the probabilities.
    tolerance={torch.float32: 5e-6, torch.float16: 5e-6, torch.bfloat16: 5e-6},
)
