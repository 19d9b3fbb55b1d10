"""Capture attention scores and keys of a vision tower, and norms of patches, while it runs.

The tower keeps its flash or SDPA attention, which never returns weights. Hooks on the attention of
one or two layers see query and key and immediately reduce them to a score or a short vector per
token, so query and key do not outlive the layer. Another one sees the patches
as they come to the merger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from vllm.distributed import get_tensor_model_parallel_world_size, tensor_model_parallel_all_reduce
from vtprune_kernels import cls_importance, column_importance

from vllm_pruner.methods.base import TOWER, Need

__all__ = [
    "MIDWAY",
    "AttentionProbe",
    "MergerInput",
    "class_first",
    "crop_reader",
    "layers_by_need",
]

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


class MergerInput(NamedTuple):
    """Where a tower's patches can be seen before they are merged, and normalised for that."""

    module: nn.Module
    """What gets or returns `[..., patches, D]`, in one tensor or in several."""

    is_returned: bool = False
    """Whether it returns them."""

    fold: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.contiguous
    """Makes a column of the norms `[..., patches]`."""

    def column(self, given: Any, returned: Any) -> torch.Tensor:
        """Return the column, given the first argument and the result of a call of `module`."""
        patches = returned if self.is_returned else given
        patches = patches if isinstance(patches, torch.Tensor) else torch.cat(list(patches))
        return self.fold(torch.linalg.vector_norm(patches, dim=-1, dtype=torch.float32))


def class_first(values: torch.Tensor) -> torch.Tensor:
    """Return `[crops, patches and class token, ...]` with the class token, the last, as first."""
    return values.roll(1, dims=1)


def crop_reader(has_class_token: bool, class_token_last: bool = False) -> _Read:
    """Return the `read` of a tower whose layers attend to the whole crop.

    Its result is `[crops, patches, ...]` over this rank's heads, with the class token first if the
    tower has one, wherever its layers see it.
    """

    def read(need: Need, layer: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        if class_token_last:  # attention is the same in any order
            query, key = class_first(query), class_first(key)
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

    def __init__(
        self,
        layers: Mapping[Need, Any],
        heads: int,
        read: _Read,
        merger: MergerInput | None = None,
    ) -> None:
        """Store where to read.

        Args:
            layers: the attention module from which each need is read.
            heads: a layer's number of heads, over all ranks.
            read: reduces query and key, given as the layer is called with them.
            merger: where `MERGER_NORM` is read; None if patches are not merged.

        Raises:
            RuntimeError: the ranks do not share the heads evenly.
        """
        self._layers, self._read, self._merger = layers, read, merger
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
            needs: a subset of `CAPTURED`; only the layers that these need are hooked.

        Yields:
            A dictionary that the call fills with the results of `read`.
        """
        captured: dict[Need, torch.Tensor] = {}
        with ExitStack() as stack:
            if Need.MERGER_NORM in needs:
                assert self._merger is not None, "the family has no merger"
                watch = self._merger.module.register_forward_hook(self._watch(captured))
                stack.callback(watch.remove)
            for need in sorted(needs - {Need.MERGER_NORM}):
                hook = self._hook(need, captured)
                handle = self._layers[need].register_forward_pre_hook(hook, with_kwargs=True)
                stack.callback(handle.remove)
            yield captured

    def columns(self, captured: Mapping[Need, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return what was captured, reduced over the ranks, by the name of each column."""
        return {str(need): self.reduce(need, values) for need, values in captured.items()}

    def _hook(self, need: Need, captured: dict[Need, torch.Tensor]) -> Any:
        @torch.no_grad()
        def look(layer: Any, args: tuple[torch.Tensor, ...], kwargs: dict[str, Any]) -> None:
            assert need not in captured, "the tower is called twice in one block"
            query, key = args[:2] if args else (kwargs["query"], kwargs["key"])
            captured[need] = self._read(need, layer, query, key)

        return look

    def _watch(self, captured: dict[Need, torch.Tensor]) -> Any:
        @torch.no_grad()
        def look(_: Any, args: tuple[Any, ...], returned: Any) -> None:
            assert self._merger is not None and Need.MERGER_NORM not in captured
            captured[Need.MERGER_NORM] = self._merger.column(args[0] if args else None, returned)

        return look

    def reduce(self, need: Need, values: torch.Tensor) -> torch.Tensor:
        """Return the mean over all heads, given the mean over this rank's heads. Every rank has
        patches whole, and so their norms."""
        if self._shards == 1 or need == Need.MERGER_NORM:
            return values
        reduced: torch.Tensor = tensor_model_parallel_all_reduce(values)
        return reduced / self._shards
