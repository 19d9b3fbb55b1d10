"""Importance of visual tokens, taken from inside a vision tower while it runs.

The tower keeps its flash or SDPA attention, which never returns weights. A hook on the attention of
the feature layer sees query and key and reduces them to one score a token at once, so nothing of
theirs outlives the layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from vllm.distributed import get_tensor_model_parallel_world_size, tensor_model_parallel_all_reduce
from vtprune_kernels import cls_importance, column_importance

from vllm_pruner import compat

__all__ = ["AttentionProbe"]


class AttentionProbe:
    """Reads the importance of the tokens that a CLIP or SigLIP tower encodes."""

    def __init__(self, tower: nn.Module, total_heads: int, has_class_token: bool) -> None:
        """Find the attention of the feature layer.

        Args:
            tower: vLLM's CLIP or SigLIP vision model.
            total_heads: heads of that layer over all ranks.
            has_class_token: whether token 0 is a class token that looks at the patches (CLIP).

        Raises:
            RuntimeError: the tower is not built as `compat` knows it.
        """
        self._attention = compat.feature_attention(tower)
        self._shards = total_heads // self._attention.num_heads
        self._score = cls_importance if has_class_token else column_importance
        if self._shards not in (1, get_tensor_model_parallel_world_size()):
            raise RuntimeError(
                f"vtprune: the tower holds {self._attention.num_heads} of {total_heads} heads, "
                f"neither all nor one of {get_tensor_model_parallel_world_size()} shares"
            )

    @contextmanager
    def capture(self) -> Iterator[list[torch.Tensor]]:
        """Fill the yielded list with `[images, N]` float32 for each tower call in the block."""
        scores: list[torch.Tensor] = []

        @torch.no_grad()
        def score(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            query, key = args[:2]
            scores.append(self._score(query, key, self._attention.num_heads, self._attention.scale))

        handle = self._attention.register_forward_pre_hook(score)
        try:
            yield scores
        finally:
            handle.remove()

    def reduce(self, importance: torch.Tensor) -> torch.Tensor:
        """Mean over all heads, where tensor parallelism left each rank a share of them."""
        if self._shards == 1:
            return importance
        reduced: torch.Tensor = tensor_model_parallel_all_reduce(importance)
        return reduced / self._shards
