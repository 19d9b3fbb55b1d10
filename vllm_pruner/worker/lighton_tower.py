"""LightOnOCR's tower: Pixtral's in its transformers form, which here takes some tokens alone.

vLLM's class takes whole pictures and makes positions of their sizes. Here patches are in the order
of tokens, so that some tokens can be taken, and each has its position in the whole picture.
`_layers` is the `forward` of `PixtralHFVisionModel` from its convolution on. Follows `pixtral.py`
of vLLM 0.32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from vllm.model_executor.models.pixtral import position_ids_in_meshgrid

from vllm_pruner import compat
from vllm_pruner.methods.on_device import sent
from vllm_pruner.worker.columns import device_of
from vllm_pruner.worker.merged_tower import Grids
from vllm_pruner.worker.packing import Packing
from vllm_pruner.worker.pixtral_tower import PixtralTower
from vllm_pruner.worker.thinned import in_token_order, patches_of

if TYPE_CHECKING:
    from vllm_pruner.tower import EncoderImage

__all__ = ["LightOnTower"]


class LightOnTower(PixtralTower):
    """The tower of LightOnOCR; see `Tower` and `ThinTower`. Pixels are `[patches, 3 * P * P]`,
    those of a token one after another."""

    norm, norm_returns = "transformer", True  # the tower itself is not called

    def pack(self, grids: Grids) -> Packing:
        sizes = [rows * columns for rows, columns in self.patches(grids)]
        return Packing.of(sizes, self.patches_per_row, None, device_of(self.module))

    def encoded(self, images: Sequence[EncoderImage], grids: Grids) -> torch.Tensor:
        pixels = torch.cat([image.pixels for image in images])
        lengths = [len(image.pixels) for image in images]
        return self._layers(pixels, self._places(grids), lengths)

    @torch.no_grad()
    def encode_some(
        self, images: Sequence[EncoderImage], kept: torch.Tensor, lengths: Sequence[int]
    ) -> torch.Tensor:
        each = self.patches_per_row
        patches = patches_of(kept, each)
        pixels = torch.cat([image.pixels for image in images])[patches]
        places = self._places([self.grids(image)[0] for image in images])[patches]
        some = [length * each for length in lengths]
        encoded = self._layers(pixels, places, some)
        return self.features(encoded, Packing.of(some, each, None, encoded.device))

    def _places(self, grids: Grids) -> torch.Tensor:
        """Return where each patch is in its picture, as the rotary embedding takes it."""
        widest = self._config.image_size // self._config.patch_size
        places = []
        for rows, columns in self.patches(grids):
            raster = position_ids_in_meshgrid([torch.empty(rows, columns)], widest)
            places.append(in_token_order(raster, rows, columns, self._merge[0]))
        return sent(torch.cat(places), device_of(self.module))

    def _layers(
        self, pixels: torch.Tensor, places: torch.Tensor, lengths: Sequence[int]
    ) -> torch.Tensor:
        """Return what the tower makes of patches, `[patches, D]`.

        Args:
            pixels: `[patches, 3 * P * P]`.
            places: of each patch, from `_places`.
            lengths: patches of each sequence.
        """
        tower, side = self.module, self._config.patch_size
        squares = pixels.to(tower.device, tower.dtype).view(-1, 3, side, side)
        hidden = tower.ln_pre(tower.patch_conv(squares).flatten(1).unsqueeze(0))
        rotary = tower.patch_positional_embedding(hidden, places)
        told = compat.pixtral_sequences(tower, lengths)
        encoded: torch.Tensor = tower.transformer(
            hidden, rotary, *told, return_all_hidden_states=False
        )
        return encoded[0]
