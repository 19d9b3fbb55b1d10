"""Selection outside vLLM: call a method on tensors.

This is what `vllm_pruner.select` runs. Inside vLLM the models call the same `Method.select`.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    projected: torch.Tensor | None = None,
    text: Sequence[torch.Tensor] | torch.Tensor | None = None,
    **options: object,
) -> torch.Tensor:
    """Choose `keep` tokens of each image; see `vllm_pruner.select`."""
    method = methods.get(name)
    parsed = parse_options(method, options)
    if features.dim() not in (2, 3):
        raise ValueError(
            f"features has shape {tuple(features.shape)}; allowed: [B, N, D] or [N, D]"
        )
    single = features.dim() == 2
    if single:
        features = features.unsqueeze(0)
        importance = None if importance is None else importance.unsqueeze(0)
        projected = None if projected is None else projected.unsqueeze(0)
        text = None if text is None else [torch.as_tensor(text)]
    tokens = VisualTokens(features, importance, projected, None if text is None else list(text))
    _check(method, keep, tokens, single)
    kept = method.select(tokens, keep, parsed)
    return kept.squeeze(0) if single else kept


def _check(method: methods.Method, keep: int, tokens: VisualTokens, single: bool) -> None:
    """Raise ValueError with one sentence for arguments that no method can work on."""
    shape = tokens.features.shape[:2]
    if type(keep) is not int or not 0 <= keep <= shape[1]:
        raise ValueError(f"keep is {keep!r}; allowed: 0 to {shape[1]}")
    if tokens.importance is None:
        if method.needs_importance:
            raise ValueError(f"importance is missing; method {method.name!r} ranks tokens by it")
    elif tokens.importance.shape != shape:
        raise ValueError(
            f"importance has shape {tuple(tokens.importance.shape[single:])}; "
            f"allowed: {tuple(shape[single:])}, one score a token"
        )
    if method.needs_text:
        _check_text(method, tokens)


def _check_text(method: methods.Method, tokens: VisualTokens) -> None:
    """Raise ValueError with one sentence if the text does not fit the tokens."""
    if tokens.projected is None or tokens.text is None:
        missing = "projected" if tokens.projected is None else "text"
        raise ValueError(f"{missing} is missing; method {method.name!r} matches tokens with text")
    images, count, _ = tokens.features.shape
    width = tokens.projected.shape[-1]
    if tokens.projected.shape != (images, count, width):
        raise ValueError(
            f"projected has shape {tuple(tokens.projected.shape)}; "
            f"allowed: one row for each of {images} x {count} tokens"
        )
    if len(tokens.text) != images or any(text.shape[1:] != (width,) for text in tokens.text):
        raise ValueError(
            f"text has shapes {[tuple(text.shape) for text in tokens.text]}; "
            f"allowed: [tokens, {width}] for each of {images} images"
        )
