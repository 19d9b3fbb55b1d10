"""Have a Qwen-VL tower encode only some tokens of its images.

What the tower prepares for whole images has a row of positions for each patch. Those of the kept
tokens' patches are taken, so a token keeps its place in the picture; attention is told of shorter
sequences. Nothing waits for the device: how many tokens each image keeps is in its plan.

Qwen2.5-VL sorts tokens by window and lets most layers attend within one. Kept tokens stay in that
order; how many of them a window has follows from the places of the others, on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from vllm_pruner import compat

if TYPE_CHECKING:
    from torch import nn

__all__ = ["can_thin", "in_token_order", "patches_of", "thinned"]

_POSITIONS = ("pos_embeds", "rotary_pos_emb_cos", "rotary_pos_emb_sin", "rotary_pos_emb")
"""What has a row for each patch, in the tower's order."""

_LONGEST = ("max_seqlen", "max_seqlen_full")
_LENGTHS = ("sequence_lengths", "sequence_lengths_full")
"""By the names of Qwen2-VL and Qwen3-VL, and of Qwen2.5-VL."""


def can_thin(tower: nn.Module, metadata: dict[str, Any]) -> bool:
    """Return whether a tower's backend takes windows whose lengths only the device knows."""
    return "window_index" not in metadata or compat.device_ends(tower)


def patches_of(tokens: torch.Tensor, each: int) -> torch.Tensor:
    """Return `[tokens * each]` int64, the patches of tokens, which are consecutive."""
    return (tokens.unsqueeze(1) * each + torch.arange(each, device=tokens.device)).flatten()


def in_token_order(patches: torch.Tensor, rows: int, columns: int, merge: int) -> torch.Tensor:
    """Return `[rows * columns, ...]` of a picture in raster order with the patches of each token
    one after another; tokens are in raster order, each `merge` patches high and wide."""
    grid = patches.unflatten(0, (rows // merge, merge, columns // merge, merge))
    ordered: torch.Tensor = grid.transpose(1, 2).flatten(0, 3)
    return ordered


def thinned(
    tower: nn.Module,
    metadata: dict[str, Any],
    kept: torch.Tensor,
    lengths: Sequence[int],
    each: int,
) -> dict[str, Any]:
    """Return what a tower prepares, for the kept tokens alone.

    Args:
        tower: vLLM's module, for which `can_thin` is true.
        metadata: what its `prepare_encoder_metadata` returns for the whole images.
        kept: `[tokens]` int64, ascending: indices among the tokens of all images.
        lengths: how many of them each image has.
        each: patches of a token.
    """
    told = compat.tower_sequences(tower, [length * each for length in lengths])
    less = metadata | {"cu_seqlens": told.ends}
    less |= {name: told.longest for name in _LONGEST if name in metadata}
    less |= {name: told.lengths for name in _LENGTHS if name in metadata}
    in_order = kept
    if "window_index" in metadata:
        in_order, by_window = metadata["reverse_indices"][kept].sort()
        starts = metadata["cu_window_seqlens"].long() // each
        less |= {
            "window_index": by_window,
            "reverse_indices": by_window.argsort(),
            "cu_window_seqlens": torch.searchsorted(in_order, starts, out_int32=True) * each,
        }
    patches = patches_of(in_order, each)
    return less | {name: metadata[name][patches] for name in _POSITIONS if name in metadata}
