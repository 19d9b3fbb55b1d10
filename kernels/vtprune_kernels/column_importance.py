"""Importance of each token where there is no class token: the attention that it receives.

For one segment (image, frame, crop) of N patches, over the heads h,

    importance[j] = mean_h mean_i softmax_j(scale * q[h, i] . k[h, j]),   i, j = 0..N-1

Used for SigLIP towers, and for those of Qwen-VL, where 2 x 2 patches in a permuted order make one
token: a token receives what its patches receive, sum_{j: token_of_patch[j] = t} importance[j]. The
importances of a segment's tokens then sum to 1, as those of its patches do.

The reference works on blocks of queries, so that only slices of a head's N x N map exist; the
kernels never form the map.

Source: the VisPruner authors' answer for encoders without a class token (their issue 1). They merge
by the mean of four patches; the sum differs by that factor only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from vtprune_kernels._triton import register_op, use_triton
from vtprune_kernels.column_importance_triton import column_importance_triton
from vtprune_kernels.spec import Spec, features

__all__ = ["SPECS", "column_importance"]

_QUERY_BLOCK = 128
"""Rows of the map held at once. 128 x 576 x 16 heads x 4 bytes = 4.7 MB an image stays in cache."""


def column_importance(
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
    """Return the attention each token receives, mean over queries and heads.

    Args:
        query: `[images, N, num_heads * head_size]`, any float dtype; `[total, ...]` with segments
            one after the other if `cu_seqlens` is given.
        key: same shape as `query`.
        num_heads: heads held here (a rank's share under tensor parallelism).
        scale: factor on the logits, usually `head_size ** -0.5`.
        cu_seqlens: `[segments + 1]` integers, where each segment starts and the last one ends.
        max_seqlen: upper bound of a segment's length; known on the host, it saves launching
            programs that have nothing to do. Default: `total`.
        valid: `[images, N]` bool, which patches exist (see `segments`): padding pays no attention
            and receives 0. Not together with `cu_seqlens`.
        lse: log-sum-exp of each query's scaled logits over its segment, float32,
            `[images, num_heads, N]` or `[num_heads, total]`, if the tower's attention saved it.
        token_of_patch: `[N]` or `[total]` integers: the token that each patch goes to. Each token
            has `patches_per_token` patches, all of one segment; tokens are numbered like `query`,
            from 0 for each image or through all segments. Default: consecutive patches.
        patches_per_token: 4 for a merge of 2 x 2.

    Returns:
        `[images, N // patches_per_token]` or `[total // patches_per_token]` float32. The values of
        a segment sum to 1.

    Raises:
        ValueError: shapes or options contradict each other.
    """
    if query.shape != key.shape or query.ndim != (3 if cu_seqlens is None else 2):
        raise ValueError(f"query {list(query.shape)}, key {list(key.shape)}")
    if cu_seqlens is not None and valid is not None:
        raise ValueError("cu_seqlens says where segments end; valid is for a padded batch")
    if query.shape[-1] % num_heads or query.shape[-2] % patches_per_token:
        raise ValueError(
            f"{list(query.shape)} for {num_heads} heads, {patches_per_token} patches a token"
        )
    run: Callable[..., torch.Tensor] = column_importance_reference
    if use_triton(query, key):
        run = _column_importance_op
    return run(
        query,
        key,
        num_heads,
        scale,
        cu_seqlens,
        max_seqlen,
        valid,
        lse,
        token_of_patch,
        patches_per_token,
    )


def column_importance_reference(
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
    """Plain torch, one slice of queries at a time, all images and heads together. Packed segments
    are masked: wasteful, but without a host sync."""
    packed = cu_seqlens is not None
    if packed:
        query, key, lse = query[None], key[None], None if lse is None else lse[None]
    images, patches, _ = query.shape
    queries = query.reshape(images, patches, num_heads, -1).transpose(1, 2).float() * scale
    keys = key.reshape(images, patches, num_heads, -1).permute(0, 2, 3, 1).float()
    # 1. Which segment each patch belongs to, how long that is; padding is in segment -1.
    position = torch.arange(patches, device=query.device)
    segment: torch.Tensor | None = None
    size: torch.Tensor | int = patches
    if cu_seqlens is not None:
        segment = torch.bucketize(position, cu_seqlens[1:].long(), right=True)[None]
        size = cu_seqlens.diff()[segment]
    elif valid is not None:
        segment = torch.where(valid, 0, -1)
        size = valid.sum(dim=1, keepdim=True).clamp_min(1)
        queries = queries.masked_fill(~valid[:, None, :, None], 0.0)  # it may hold NaN
        keys = keys.masked_fill(~valid[:, None, None, :], 0.0)
    # 2. The map, in slices, and its column sums.
    received: torch.Tensor = queries.new_zeros(images, patches)
    for block in position.split(_QUERY_BLOCK):
        logits = queries[:, :, block] @ keys
        if segment is not None:
            seen = (segment[:, block, None] == segment[:, None]) & (segment >= 0)[:, None]
            logits = logits.masked_fill(~seen[:, None], -math.inf)
        if lse is None:
            slice_of_map = logits.softmax(dim=-1)
        else:
            slice_of_map = (logits - lse[:, :, block, None]).exp()
        if valid is not None:
            assert segment is not None
            slice_of_map = slice_of_map.masked_fill((segment < 0)[:, None, block, None], 0.0)
        received += slice_of_map.sum(dim=(1, 2))
    received = received / (size * num_heads)
    # 3. Patches to tokens.
    if token_of_patch is not None:
        received = received[:, token_of_patch.argsort(stable=True)]
    received = received.unflatten(1, (-1, patches_per_token)).sum(dim=2)
    return received[0] if packed else received


def _column_importance_fake(
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
    *images, patches, _ = query.shape
    return query.new_empty((*images, patches // patches_per_token), dtype=torch.float32)


_column_importance_op = register_op(
    "column_importance",
    column_importance_triton,
    column_importance_reference,
    _column_importance_fake,
)


def _make_inputs(
    kind: str, size: int, dtype: torch.dtype, device: torch.device | str, large: bool = False
) -> dict[str, Any]:
    images, heads, head_size = (8, 16, 64) if large else (2, 2, 80)
    fused = features(kind, (images, size, 3 * heads * head_size), dtype, device)
    query, key, _ = fused.chunk(3, dim=-1)
    # A hole in the first image; the second one ends earlier.
    valid = torch.ones(images, size, dtype=torch.bool, device=device)
    valid[0, size // 2 :: size], valid[1, size - size // 3 :] = size == 1, False
    return {
        "query": query,
        "key": key,
        "num_heads": heads,
        "scale": head_size**-0.5,
        "valid": None if large else valid,
    }


SPECS = (
    Spec(
        name="column_importance",
        op=column_importance,
        reference=column_importance_reference,
        launcher=column_importance_triton,
        registered=_column_importance_op,
        make_inputs=_make_inputs,
        # Products are exact and sums float32 for every input dtype, so only the order of additions
        # and the last bits of exp2 differ: some 1e-6 of a logit, hence of a value at most 1.
        tolerance={torch.float32: 5e-6, torch.float16: 5e-6, torch.bfloat16: 5e-6},
    ),
)
