"""Attention scores and keys of a vision tower, captured while it runs.

The tower keeps its flash or SDPA attention, which never returns weights. Hooks on the attention of
one or two layers see query and key and reduce them at once to a score or a short vector for each
token, so neither outlives the layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from vllm.distributed import get_tensor_model_parallel_world_size, tensor_model_parallel_all_reduce
from vtprune_kernels import cls_importance, column_importance

from vllm_pruner import compat
from vllm_pruner.methods.base import TOWER, Need

__all__ = ["AttentionProbe"]

_MIDWAY = 3 / 8
"""HiPrune's object layer as a share of the depth: the 9th of CLIP's 24 layers."""


class AttentionProbe:
    """Reads the attention of a CLIP or SigLIP tower."""

    def __init__(self, tower: nn.Module, hf_config: Any, has_class_token: bool) -> None:
        """Find the layers.

        Args:
            tower: vLLM's CLIP or SigLIP vision model.
            hf_config: its configuration, of the full depth.
            has_class_token: whether token 0 is a class token that attends to the patches (CLIP).

        Raises:
            RuntimeError: the tower is not built as `compat` knows it.
        """
        attention = compat.tower_attention(tower)
        midway = max(1, round(_MIDWAY * hf_config.num_hidden_layers))
        self._layer_of = dict.fromkeys(TOWER, attention)
        self._layer_of[Need.RECEIVED_MIDWAY] = compat.tower_attention(tower, midway - 1)
        self._has_class_token = has_class_token
        heads = hf_config.num_attention_heads
        self._shards: int = heads // attention.num_heads
        if self._shards not in (1, get_tensor_model_parallel_world_size()):
            raise RuntimeError(
                f"vtprune: the tower holds {attention.num_heads} of {heads} heads, "
                f"neither all nor one of {get_tensor_model_parallel_world_size()} shares"
            )

    @contextmanager
    def capture(self, needs: frozenset[Need]) -> Iterator[dict[Need, torch.Tensor]]:
        """Capture the one call of the tower in the block.

        Args:
            needs: any of `TOWER`; only the layers that these come from are hooked.

        Yields:
            A dictionary that the call fills: `[images, N, ...]` float32 by need, of this rank's
            heads. A class token comes first where there is one.
        """
        captured: dict[Need, torch.Tensor] = {}
        with ExitStack() as stack:
            for need in sorted(needs):
                layer = self._layer_of[need]
                handle = layer.register_forward_pre_hook(self._hook(need, captured))
                stack.callback(handle.remove)
            yield captured

    def _hook(self, need: Need, captured: dict[Need, torch.Tensor]) -> Any:
        @torch.no_grad()
        def look(layer: Any, args: tuple[torch.Tensor, ...]) -> None:
            assert need not in captured, "the tower is called twice in one block"
            captured[need] = self._read(need, layer, *args[:2])

        return look

    def _read(self, need: Need, layer: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        if need == Need.KEYS:
            heads: torch.Tensor = key.unflatten(2, (layer.num_heads, -1)).float()
            return heads.mean(dim=2)
        of_class = need == Need.IMPORTANCE and self._has_class_token
        score = cls_importance if of_class else column_importance
        scores: torch.Tensor = score(query, key, layer.num_heads, layer.scale)
        return scores

    def reduce(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean over all heads of values over this rank's heads."""
        if self._shards == 1:
            return values
        reduced: torch.Tensor = tensor_model_parallel_all_reduce(values)
        return reduced / self._shards
