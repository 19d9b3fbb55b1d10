"""Selection outside vLLM: call a method on tensors.

This is what `vllm_pruner.select` runs. Inside vLLM the models call the same `Method.select`.
"""

from __future__ import annotations

import torch

from vllm_pruner import method as methods
from vllm_pruner.config import parse_options
from vllm_pruner.method import VisualTokens

__all__ = ["select"]


def select(
    name: str,
    *,
    keep: int,
    features: torch.Tensor,
    importance: torch.Tensor | None = None,
    **options: object,
) -> torch.Tensor:
    """Choose `keep` tokens of each image; see `vllm_pruner.select`."""
    method = methods.get(name)
    parsed = parse_options(method, options)
    if features.dim() == 2:
        row = None if importance is None else importance.unsqueeze(0)
        batched = select(name, keep=keep, features=features.unsqueeze(0), importance=row, **options)
        return batched.squeeze(0)
    _check(method, keep, features, importance)
    return method.select(VisualTokens(features, importance), keep, parsed)


def _check(
    method: methods.Method, keep: int, features: torch.Tensor, importance: torch.Tensor | None
) -> None:
    """Raise ValueError with one sentence for arguments that no method can work on."""
    if features.dim() != 3:
        raise ValueError(
            f"features has shape {tuple(features.shape)}; allowed: [B, N, D] or [N, D]"
        )
    if not 0 <= keep <= features.shape[1]:
        raise ValueError(f"keep is {keep}; allowed: 0 to {features.shape[1]}")
    if importance is None:
        if method.needs_importance:
            raise ValueError(f"importance is missing; method {method.name!r} ranks tokens by it")
    elif importance.shape != features.shape[:2]:
        raise ValueError(
            f"importance has shape {tuple(importance.shape)}; "
            f"allowed: {tuple(features.shape[:2])}, one score a token"
        )
