"""Importance of each patch: the attention that the class token pays to it.

For one image with a class token at position 0 and patches 1..N, over the heads h,

    importance[j] = mean_h softmax_t(scale * q[h, 0] . k[h, t])[1 + j],   t = 0..N, j = 0..N-1

The softmax runs over all N+1 keys and is sliced afterwards; taking it over the patches alone would
reweight the heads by 1 - p_cls and change the ranking. Only the class row is computed: N+1 logits a
head instead of an (N+1) x (N+1) map.

Source: VisPruner (arXiv 2412.01818), which reads the same row from the full map.
"""

from __future__ import annotations

import torch

__all__ = ["cls_importance"]


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
    """
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
