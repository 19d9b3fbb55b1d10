"""MiniCPM-V's tower: SigLIP for images of any size, a merger of patches midway, another behind it.

Midway, 2 x 2 patches that have attended to each other become one, unless a request asks for
`downsample_mode` "4x"; behind the last layer, 2 x 2 of what there is then become a token. Attention
and keys are read in layers between the two and folded into tokens: a token's received attention is
the sum over its four, its key their mean. Methods compare the normalised features of the four; only
kept tokens are projected: `encode` and `project` split what the model's last merger does.

Stock vLLM pads the slices of a batch to the longest and masks the rest. Here slices of one size are
a call of the tower, which needs neither.

Pixels are `[slices, 3, P, patches * P]`: the patches of a slice in raster order, beside each other;
a shorter slice of an image is padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import isqrt
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from vllm_pruner import compat
from vllm_pruner.layout.sliced_grid import SlicedGrid
from vllm_pruner.methods.base import Need
from vllm_pruner.methods.on_device import on_device
from vllm_pruner.tower import FEATURES, Columns
from vllm_pruner.worker.columns import columns_by_size, columns_of
from vllm_pruner.worker.packed_tower import PAGE
from vllm_pruner.worker.probe import AttentionProbe, MergerInput, crop_reader, layers_by_need
from vllm_pruner.worker.shuffle_tower import squares

if TYPE_CHECKING:
    from vllm_pruner.tower import EncoderImage

__all__ = ["SliceTower"]

_LAYERS, _ATTENTION, _NORM = "encoder.layers", "self_attn.attn", "post_layernorm"
_SIDE = 2
"""Rows, and columns, of what becomes one in either merger."""


class _Grid(NamedTuple):
    """What slices of one call have in common."""

    rows: int
    columns: int
    """Of tokens."""

    side: int
    """Rows, and columns, of patches in a token: 4, or 2 if none are merged midway."""

    @property
    def patches(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.rows * self.side, self.columns * self.side


class SliceTower:
    """The tower of a model with MiniCPM-V 4.6's parts; see `Tower`."""

    own_width: int | None = None

    def __init__(self, model: Any) -> None:
        """Find the layers.

        Args:
            model: vLLM's model, with `vpm`, `vit_merger` and a `merger` of one step.

        Raises:
            RuntimeError: the tower lacks a module that `compat.tower` relies on.
        """
        self.module, self.page = model.vpm, PAGE
        self.patches_per_row = _SIDE**4  # in the first layers; a quarter behind the merger
        self._config = model.config.vision_config
        self._midway, self._last = model.vit_merger, model.merger.mlp[0]
        self._first: int = model.config.insert_layer_id + 1
        """The first layer behind the merger midway."""
        depth = len(self.module.get_submodule(_LAYERS))
        found = layers_by_need(lambda layer: self._attention(layer % depth), depth)
        merger = MergerInput(compat.last_norm(self.module, _NORM))
        heads = self._config.num_attention_heads
        self._probe = AttentionProbe(found, heads, crop_reader(has_class_token=False), merger)

    def _attention(self, layer: int) -> Any:
        """Return the attention of a layer, or of the first one that sees what is merged midway."""
        layer = max(layer, self._first)
        return compat.tower_attention(self.module, _LAYERS, layer, _ATTENTION)

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self._last.linear_2(self._last.act(self._last.linear_1(rows)))
        return projected

    def columns(self, needs: frozenset[Need]) -> dict[str, tuple[int, torch.dtype]]:
        width = self._config.hidden_size
        head_size = width // self._config.num_attention_heads
        return columns_of(self.module, width * _SIDE**2, head_size, needs)

    @torch.no_grad()
    def encode(self, images: Sequence[EncoderImage], needs: frozenset[Need]) -> Columns:
        grids = [grid for image in images for grid in _grids(image)]
        slices = [piece for image in images for piece in image.pixels]
        return columns_by_size(slices, grids, partial(self._encoded, needs=needs))

    def _encoded(
        self, slices: Sequence[torch.Tensor], grid: _Grid, needs: frozenset[Need]
    ) -> Columns:
        """Return the columns `[slices, tokens, ...]` of slices of one size."""
        length = grid.patches[0] * grid.patches[1] * slices[0].shape[1]
        pixels = torch.stack([piece[..., :length] for piece in slices])
        with self._probe.capture(needs) as captured:
            patches = self._run(pixels, grid)
        features: torch.Tensor = self._last.pre_norm(_by_token(patches, grid))
        columns = {str(need): self._fold(need, values, grid) for need, values in captured.items()}
        return {FEATURES: features, **columns}

    def _run(self, pixels: torch.Tensor, grid: _Grid) -> torch.Tensor:
        """Return `[slices, 4 * tokens, D]`, as stock's `get_vision_hidden_states` has them before
        the last merger."""
        rows, columns = grid.patches
        count, device = len(pixels), pixels.device
        every = torch.ones(count, 1, rows * columns, dtype=torch.bool, device=device)
        sizes = on_device([grid.patches] * count, device)
        hidden = self.module.embeddings(pixels, patch_attention_mask=every, tgt_sizes=sizes)
        layers = self.module.encoder.layers
        for layer in layers[: self._first]:
            hidden = layer(hidden)
        if grid.side > _SIDE:
            hidden = self._merged_midway(hidden, grid)
        for layer in layers[self._first :]:
            hidden = layer(hidden)
        normalised: torch.Tensor = self.module.post_layernorm(hidden)
        return normalised

    def _merged_midway(self, hidden: torch.Tensor, grid: _Grid) -> torch.Tensor:
        """Return `[slices, patches / 4, D]` of `[slices, patches, D]`: what the model's
        `vit_merger` does, for all slices at once."""
        merger = self._midway
        windows = squares(hidden.unflatten(1, grid.patches), _SIDE).flatten(1, 2)
        windows = windows.unflatten(2, (_SIDE**2, -1)).flatten(0, 1)
        windows = windows + merger.self_attn(merger.layer_norm1(windows))
        joined = merger.act(merger.linear_1(merger.pre_norm(windows.flatten(1))))
        merged: torch.Tensor = merger.linear_2(joined) + windows.mean(dim=1)
        return merged.view(len(hidden), -1, hidden.shape[2])

    def _fold(self, need: Need, values: torch.Tensor, grid: _Grid) -> torch.Tensor:
        """Reduce what the probe captured over all ranks; fold it into `[slices, tokens, ...]`."""
        values = self._probe.reduce(need, values)
        if need == Need.KEYS:
            keys: torch.Tensor = _by_token(values, grid).unflatten(2, (_SIDE**2, -1))
            return keys.mean(dim=2)
        return _by_token(values.unsqueeze(2), grid).sum(dim=2)


def _grids(image: EncoderImage) -> list[_Grid]:
    """Return the grid of each slice of an image; the largest is as long as its pixels."""
    layout = image.layout
    assert isinstance(layout, SlicedGrid)
    patches = image.pixels.shape[-1] // image.pixels.shape[-2]
    side = isqrt(patches // max(grid.tokens for grid in layout.grids))
    return [_Grid(grid.rows, grid.columns, side) for grid in layout.grids]


def _by_token(patches: torch.Tensor, grid: _Grid) -> torch.Tensor:
    """Concatenate what belongs to a token: return `[slices, tokens, 4 * D]`, given
    `[slices, 4 * tokens, D]`."""
    raster = patches.unflatten(1, (grid.rows * _SIDE, grid.columns * _SIDE))
    return squares(raster, _SIDE).flatten(1, 2)
