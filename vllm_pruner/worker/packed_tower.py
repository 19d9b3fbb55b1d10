"""The tower of Qwen-VL and its kin, which takes images of any resolution, packed into one sequence.

Patches attend within their image, in some layers within a window of it. Finally a merger turns 2 x
2 patches into one token, already in the decoder's space. Attention and keys are read before the
merger and folded into tokens (`packing`). (Ranking tokens by the merger's output ruins text:
Qwen3-VL-8B at a quarter of the tokens scores .222 instead of .605 on TextVQA; "The Lossy Merger", a
draft.)

Qwen3-VL's merger appends features of earlier layers to a token's own (DeepStack): `[tokens, D *
(1 + levels)]`. They stay with the token, and no method compares them.

Pixels are `[patches, ...]`; the patches of a token are consecutive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from vllm_pruner import compat
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.methods.base import TOWER, Need
from vllm_pruner.tower import FEATURES, Columns
from vllm_pruner.worker.columns import columns_of, device_of
from vllm_pruner.worker.packing import Packing
from vllm_pruner.worker.probe import MIDWAY, AttentionProbe, MergerInput
from vllm_pruner.worker.thinned import can_thin, patches_of, thinned

if TYPE_CHECKING:
    from vllm_pruner.tower import EncoderImage

__all__ = ["ORDER", "PAGE", "PackedTower"]

ORDER = "window_index"
"""vLLM's name for the order of tokens that a tower sorts by window (Qwen2.5-VL)."""

_NORMS = ("merger.ln_q", "merger.norm", "post_layernorm")
"""Names of the norm in front of the merger, whichever a tower has."""

PAGE = 64
"""Tokens per slot of the feature cache. An image wastes half a slot on average: 1 % of 4,096."""


class PackedTower:
    """The tower of a Qwen-VL-like model; see `Tower`."""

    _packing: Packing
    """How the images of the call are packed that is running."""

    def __init__(self, model: Any) -> None:
        """Find the layers.

        Args:
            model: vLLM's model, with a tower `visual` that has `prepare_encoder_metadata` and
                `out_hidden_size`, the width of a token with all its levels; see `OmniTower` for
                one that has neither.

        Raises:
            RuntimeError: the tower lacks a module that `compat.tower` relies on.
        """
        self.module, self.page = model.visual, PAGE
        self._config = model.config.vision_config
        self._merge: int = self._config.spatial_merge_size
        self.patches_per_row = self._merge**2
        levels = len(getattr(self._config, "deepstack_visual_indexes", None) or ())
        self._width = self._row_width(levels)
        self.own_width = self._width // (1 + levels) if levels else None
        whole = _layers_with_whole_attention(self._config)
        midway = round(MIDWAY * self._config.depth) - 1
        nearest = min(whole, key=lambda layer: (abs(layer - midway), layer))
        layers = dict.fromkeys(TOWER, self._attention(whole[-1]))
        layers[Need.RECEIVED_MIDWAY] = self._attention(nearest)
        self._head_size: int = layers[Need.KEYS].head_size
        merger = MergerInput(compat.last_norm(self.module, *_NORMS), fold=self._fold)
        self._probe = AttentionProbe(layers, self._config.num_heads, self._read, merger)

    def _attention(self, layer: int) -> Any:
        return compat.tower_attention(self.module, "blocks", layer, "attn.attn")

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the rows unchanged: the merger has projected them."""
        return rows

    def columns(self, needs: frozenset[Need]) -> dict[str, tuple[int, torch.dtype]]:
        return columns_of(self.module, self._width, self._head_size, needs)

    @torch.no_grad()
    def encode(self, images: Sequence[EncoderImage], needs: frozenset[Need]) -> Columns:
        pixels = torch.cat([image.pixels for image in images])
        grids = [self._grid(image) for image in images]
        metadata = self._metadata(grids)
        self._packing = self._pack(grids, metadata)
        with self._probe.capture(needs) as captured:
            features = self._run(pixels, grids, metadata)
        return {FEATURES: features, **self._probe.columns(captured)}

    @torch.no_grad()
    def encode_some(
        self, images: Sequence[EncoderImage], kept: torch.Tensor, lengths: Sequence[int]
    ) -> torch.Tensor:
        pixels = torch.cat([image.pixels for image in images])
        grids = [self._grid(image) for image in images]
        metadata = self._metadata(grids)
        if not can_thin(self.module, metadata):
            return self._run(pixels, grids, metadata)[kept]
        each = self.patches_per_row
        less = thinned(self.module, metadata, kept, lengths, each)
        return self._run(pixels[patches_of(kept, each)], grids, less)

    def _row_width(self, levels: int) -> int:
        """Return the width of a token with all its levels."""
        width: int = self.module.out_hidden_size
        return width

    def _metadata(self, grids: list[list[int]]) -> dict[str, Any]:
        """Return what the tower prepares before it runs."""
        prepared: dict[str, Any] = self.module.prepare_encoder_metadata(grids)
        return prepared

    def _run(
        self, pixels: torch.Tensor, grids: list[list[int]], metadata: dict[str, Any]
    ) -> torch.Tensor:
        """Return the rows of all tokens, `[tokens, width]`."""
        rows: torch.Tensor = self.module(pixels, grids, encoder_metadata=metadata)
        return rows

    def _grid(self, image: EncoderImage) -> list[int]:
        """Return the numbers of frames, and of rows and columns of patches."""
        layout = image.layout
        assert isinstance(layout, GridLayout)
        sides = (layout.rows, layout.columns)
        return [max(1, layout.frames), *(side * self._merge for side in sides)]

    def _pack(self, grids: list[list[int]], metadata: dict[str, Any]) -> Packing:
        # Patches of a video attend within their frame.
        sizes = [rows * columns for frames, rows, columns in grids for _ in range(frames)]
        order = metadata.get(ORDER)
        if order is not None:  # Qwen2.5-VL sorts tokens by window, and undoes it after the merger
            order = order.to(torch.int64).repeat_interleave(self.patches_per_row)
        return Packing.of(sizes, self.patches_per_row, order, device_of(self.module))

    def _read(self, need: Need, layer: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return self._packing.read(need, layer, query, key)

    def _fold(self, norms: torch.Tensor) -> torch.Tensor:
        return self._packing.sums(norms)


def _layers_with_whole_attention(vision_config: Any) -> list[int]:
    """Return the layers in which patches attend to their whole image, not to a window of it."""
    whole = getattr(vision_config, "fullatt_block_indexes", None)
    return sorted(whole) if whole else list(range(vision_config.depth))
