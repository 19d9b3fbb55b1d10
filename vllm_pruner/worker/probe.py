"""Capture attention scores and keys of a vision tower while it runs.

The tower keeps its flash or SDPA attention, which never returns weights. Hooks on the attention of
one or two layers see query and key and immediately reduce them to a score or a short vector per
token, so query and key do not outlive the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from vllm.distributed import get_tensor_model_parallel_world_size, tensor_model_parallel_all_reduce
from vtprune_kernels import cls_importance, column_importance

from vllm_pruner.methods.base import TOWER, Need

__all__ = ["MIDWAY", "AttentionProbe", "crop_reader", "layers_by_need"]

MIDWAY = 3 / 8
"""HiPrune's object layer as a share of the depth: the 9th of CLIP's 24 layers."""

_Read = Callable[[Need, Any, torch.Tensor, torch.Tensor], torch.Tensor]
"""`read(need, layer, query, key)`: reduces an attention call to a column, over this rank's
heads."""


def layers_by_need(attention: Callable[[int], Any], depth: int) -> dict[Need, Any]:
    """Return the attention module from which each need is read, in a tower whose layers all attend
    to the whole crop: the last layer's, and for `received_midway` the one at `MIDWAY`.

    Args:
        attention: returns the attention module of a layer, given its (possibly negative) index.
        depth: number of the tower's layers.
    """
    layers = dict.fromkeys(TOWER, attention(-1))
    layers[Need.RECEIVED_MIDWAY] = attention(max(1, round(MIDWAY * depth)) - 1)
    return layers


def crop_reader(has_class_token: bool) -> _Read:
    """Return the `read` of a tower whose layers attend to the whole crop.

    Its result is `[crops, patches, ...]` over this rank's heads, with the class token first if the
    tower has one.
    """

    def read(need: Need, layer: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        if need == Need.KEYS:
            heads: torch.Tensor = key.unflatten(2, (layer.num_heads, -1)).float()
            return heads.mean(dim=2)
        of_class = need == Need.IMPORTANCE and has_class_token
        score = cls_importance if of_class else column_importance
        scores: torch.Tensor = score(query, key, layer.num_heads, layer.scale)
        return scores

    return read


class AttentionProbe:
    """Captures what methods need from a tower's attention."""

    def __init__(self, layers: Mapping[Need, Any], heads: int, read: _Read) -> None:
        """Store where to read.

        Args:
            layers: the attention module from which each need is read.
            heads: a layer's number of heads, over all ranks.
            read: reduces query and key, given as the layer is called with them.

        Raises:
            RuntimeError: the ranks do not share the heads evenly.
        """
        self._layers, self._read = layers, read
        here = next(iter(layers.values())).num_heads
        self._shards: int = heads // here
        if self._shards not in (1, get_tensor_model_parallel_world_size()):
            raise RuntimeError(
                f"vtprune: the tower holds {here} of {heads} heads, "
                f"neither all nor one of {get_tensor_model_parallel_world_size()} shares"
            )

    @contextmanager
    def capture(self, needs: frozenset[Need]) -> Iterator[dict[Need, torch.Tensor]]:
        """Capture the single call of the tower in the block.

        Args:
            needs: a subset of `TOWER`; only the layers that these need are hooked.

        Yields:
            A dictionary that the call fills with the results of `read`.
        """
        captured: dict[Need, torch.Tensor] = {}
        with ExitStack() as stack:
            for need in sorted(needs):
                hook = self._hook(need, captured)
                handle = self._layers[need].register_forward_pre_hook(hook, with_kwargs=True)
                stack.callback(handle.remove)
            yield captured

    def _hook(self, need: Need, captured: dict[Need, torch.Tensor]) -> Any:
        @torch.no_grad()
        def look(layer: Any, args: tuple[torch.Tensor, ...], kwargs: dict[str, Any]) -> None:
            assert need not in captured, "the tower is called twice in one block"
            query, key = args[:2] if args else (kwargs["query"], kwargs["key"])
            captured[need] = self._read(need, layer, query, key)

        return look

    def reduce(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean over all heads, given the mean over this rank's heads."""
        if self._shards == 1:
            return values
        reduced: torch.Tensor = tensor_model_parallel_all_reduce(values)
        return reduced / self._shards
