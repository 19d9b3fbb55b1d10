"""Importance of each patch: the attention that the class token pays to it.

For one image with a class token at position 0 and patches 1..N, over the heads h,

    importance[j] = mean_h softmax_t(scale * q[h, 0] . k[h, t])[1 + j],   t = 0..N, j = 0..N-1

The softmax runs over all N+1 keys and is sliced afterwards; taking it over the patches alone would
reweight the heads by 1 - p_cls and change the ranking. Only the class row is computed: N+1 logits a
head instead of an (N+1) x (N+1) map.

Source: VisPruner (arXiv 2412.01818), which reads the same row from the full map.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from vtprune_kernels._triton import register_op, use_triton
from vtprune_kernels.cls_importance_triton import cls_importance_triton
from vtprune_kernels.spec import Spec, features

__all__ = ["SPECS", "cls_importance"]


def cls_importance(
    query: torch.Tensor,
    key: torch.Tensor,
    num_heads: int,
    scale: float,
    valid: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the class token's attention to the patches, mean over heads.

    Args:
        query: `[images, 1 + N, num_heads * head_size]`, any float dtype, class token first.
        key: same shape as `query`.
        num_heads: heads held here. Under tensor parallelism that is a rank's share; the mean over
            ranks of the results is then the mean over all heads.
        scale: factor on the logits, usually `head_size ** -0.5`.
        valid: `[images, N]` bool, which patches exist (see `segments`): the others take no part in
            the softmax and get 0. Do not exclude padding that the tower itself attended to, as in
            LLaVA-NeXT's crops; that is masked when tokens are ranked.

    Returns:
        `[images, N]` float32. Rows sum to at most 1 (the class token's own share is left out).

    Raises:
        ValueError: the shapes differ, or `num_heads` does not divide the channels.
    """
    if query.shape != key.shape or query.ndim != 3 or query.shape[-1] % num_heads:
        raise ValueError(f"shapes {list(query.shape)}, {list(key.shape)} with {num_heads} heads")
    if use_triton(query, key):
        return _cls_importance_op(query, key, num_heads, scale, valid)
    return cls_importance_reference(query, key, num_heads, scale, valid)


def cls_importance_reference(
    query: torch.Tensor,
    key: torch.Tensor,
    num_heads: int,
    scale: float,
    valid: torch.Tensor | None = None,
) -> torch.Tensor:
    """Plain torch. A product and a sum instead of a GEMM: the sum over a head's channels has the
    same order for any number of images, so an image scores the same in any batch."""
    images, tokens, _ = query.shape
    cls = query[:, :1].reshape(images, 1, num_heads, -1).float()
    keys = key.reshape(images, tokens, num_heads, -1).float()
    logits = (keys * cls).sum(-1) * scale
    if valid is not None:
        padding = torch.nn.functional.pad(~valid, (1, 0))  # the class token exists
        logits = logits.masked_fill(padding.unsqueeze(2), -math.inf)
    return logits.softmax(dim=1).mean(dim=2)[:, 1:].contiguous()


def _cls_importance_fake(
    query: torch.Tensor,
    key: torch.Tensor,
    num_heads: int,
    scale: float,
    valid: torch.Tensor | None = None,
) -> torch.Tensor:
    return key.new_empty((key.shape[0], key.shape[1] - 1), dtype=torch.float32)


_cls_importance_op = register_op(
    "cls_importance",
    cls_importance_triton,
    cls_importance_reference,
    _cls_importance_fake,
)


def _make_inputs(
    kind: str, size: int, dtype: torch.dtype, device: torch.device | str, large: bool = False
) -> dict[str, Any]:
    images, heads, head_size = (8, 16, 64) if large else (2, 3, 72)
    # Query, key and value interleaved as a fused projection leaves them: the strides are not those
    # of a tensor of their own.
    fused = features(kind, (images, 1 + size, 3 * heads * head_size), dtype, device)
    query, key, _ = fused.chunk(3, dim=-1)
    return {"query": query, "key": key, "num_heads": heads, "scale": head_size**-0.5}


SPECS = (
    Spec(
        name="cls_importance",
        op=cls_importance,
        reference=cls_importance_reference,
        launcher=cls_importance_triton,
        registered=_cls_importance_op,
        make_inputs=_make_inputs,
        # Products and sums are float32 for every input dtype. Logits of a few units carry an error
        # of some 1e-6 from the order of 128 additions: a relative error of the probabilities.
        tolerance={torch.float32: 5e-6, torch.float16: 5e-6, torch.bfloat16: 5e-6},
    ),
)
