"""Embed tokens that are not those of the step, on a server with LoRA adapters.

Replaces: for the length of a call, `forward` of an embedding that LoRA wraps.
Why: the wrapper applies adapters by a table of the step's tokens, and takes any others for these:
the engine dies on a CPU, and elsewhere an adapter of another request may be applied.
Relies on: `VocabParallelEmbeddingWithLoRA.base_layer`.
vLLM versions: 0.31 to 0.33.
Goes when: an embedding can be asked without adapters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["PlainEmbedding"]


class PlainEmbedding:
    """The input embeddings of a language model, without any adapter."""

    def __init__(self, decoder: Any) -> None:
        """Find what LoRA wraps.

        Args:
            decoder: the language model, once vLLM has loaded it.
        """
        from vllm.lora.layers import VocabParallelEmbeddingWithLoRA

        self._decoder = decoder
        self._wrapped: list[tuple[nn.Module, nn.Module]] = [
            (each, each.base_layer)
            for each in decoder.modules()
            if isinstance(each, VocabParallelEmbeddingWithLoRA)
        ]

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """Return `[tokens, D]`, given token ids `[tokens]`."""
        for wrapper, base in self._wrapped:
            wrapper.forward = base.forward  # of the instance, before that of its class
        try:
            rows: torch.Tensor = self._decoder.embed_input_ids(ids)
        finally:
            for wrapper, _ in self._wrapped:
                del wrapper.forward
        return rows
