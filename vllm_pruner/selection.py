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
    _check(method, keep, features, importance)
    if features.dim() == 3:
        return method.select(VisualTokens(features, importance), keep, parsed)
    row = None if importance is None else importance.unsqueeze(0)
    return method.select(VisualTokens(features.unsqueeze(0), row), keep, parsed).squeeze(0)


def _check(
    method: methods.Method, keep: int, features: torch.Tensor, importance: torch.Tensor | None
) -> None:
    """Raise ValueError with one sentence for arguments that no method can work on."""
    if features.dim() not in (2, 3):
        raise ValueError(
            f"features has shape {tuple(features.shape)}; allowed: [B, N, D] or [N, D]"
        )
    images, tokens = features.shape[:-2], features.shape[-2]
    if type(keep) is not int or not 0 <= keep <= tokens:
        raise ValueError(f"keep is {keep!r}; allowed: 0 to {tokens}")
    if importance is None:
        if method.needs_importance:
            raise ValueError(f"importance is missing; method {method.name!r} ranks tokens by it")
    elif importance.shape != (*images, tokens):
        raise ValueError(
            f"importance has shape {tuple(importance.shape)}; "
            f"allowed: {(*images, tokens)}, one score a token"
        )
