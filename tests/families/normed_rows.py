"""vLLM's norm of queries and keys for CPUs: the one of GLM-5-Next's tower is a Triton kernel alone,
which vLLM compiles for GPUs."""

from __future__ import annotations

import torch
from vllm.models.common.ops import fused_qk_rmsnorm

__all__ = ["norm_rows_on_a_cpu"]


def _normed(
    queries: torch.Tensor,
    keys: torch.Tensor,
    to_queries: torch.Tensor,
    to_keys: torch.Tensor,
    of_queries: torch.Tensor,
    of_keys: torch.Tensor,
    eps: float,
) -> None:
    """Write rows divided by the root of their mean square, times a weight, as the kernel does."""
    for rows, to, weight in ((queries, to_queries, of_queries), (keys, to_keys, of_keys)):
        exact = rows.float()
        scale = (exact.square().mean(dim=-1, keepdim=True) + eps).rsqrt()
        to.copy_(exact * scale * weight.float())


def norm_rows_on_a_cpu() -> None:
    """Put it in the kernel's place, for stock vLLM too."""
    fused_qk_rmsnorm._FUSED_Q_KV_RMSNORM_KERNEL = _normed
