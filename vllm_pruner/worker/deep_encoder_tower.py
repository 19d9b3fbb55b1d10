"""DeepSeek-OCR's tower, DeepEncoder: SAM over a view of the picture, whose 16 patches of a token it
joins by convolutions, and CLIP over these tokens. A token's features are CLIP's, then SAM's.

An image is up to two views: its crops, whose tokens are one raster, and the whole picture.
Importance is the attention of CLIP's class token, which sees tokens one to one. It attends within a
view, and views have unlike numbers of tokens: to rank all in one list, each score is divided by the
mean of its view. As in vLLM each picture's views are encoded by themselves: SAM's global attention
takes more memory than all else.

A method that chooses by pixels does so although the tower has to see all of the picture: what it
spares is the decoder's work alone. Follows `deepseek_ocr.py` and `deepencoder.py` of vLLM 0.32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch

from vllm_pruner import compat
from vllm_pruner.methods.base import Need
from vllm_pruner.tower import FEATURES, Columns, EncoderImage
from vllm_pruner.worker.columns import columns_of
from vllm_pruner.worker.crop_tower import last_rows
from vllm_pruner.worker.packed_tower import PAGE
from vllm_pruner.worker.probe import AttentionProbe, crop_reader, layers_by_need

__all__ = ["PATCH", "DeepEncoderTower", "ViewedImage", "pixels_of_tokens", "stitched"]

PATCH = 64
"""Side in pixels of a token: four patches of SAM, joined by two convolutions of stride two."""

_LAYERS, _ATTENTION = "transformer.layers", "self_attn.attn"


@dataclass(frozen=True, slots=True, eq=False)
class ViewedImage(EncoderImage):
    """An image whose `pixels` are the whole picture, `[1, 3, side, side]`."""

    crops: torch.Tensor
    """`[crops, 3, side, side]`, row by row; of any side, and maybe none."""

    tiles: tuple[int, int]
    """Rows and columns of crops."""


class DeepEncoderTower:
    """The tower of a DeepSeek-OCR; see `Tower` and `ThinTower`."""

    own_width: int | None = None
    patches_per_row = 16
    page = PAGE

    def __init__(self, model: Any) -> None:
        """Find the layers.

        Args:
            model: vLLM's model, with `sam_model`, `vision_model` and `projector`.

        Raises:
            RuntimeError: the tower lacks a module that `compat.tower` relies on.
        """
        self.module, self._sam, self._projector = (
            model.vision_model,
            model.sam_model,
            model.projector,
        )
        self._config = self.module.config
        found = layers_by_need(
            lambda layer: compat.tower_attention(self.module, _LAYERS, layer, _ATTENTION),
            self._config.num_hidden_layers,
        )
        heads = self._config.num_attention_heads
        self._probe = AttentionProbe(found, heads, crop_reader(has_class_token=True))

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self._projector(rows.flatten(0, -2).unsqueeze(0))
        return projected.view(*rows.shape[:-1], -1)

    def columns(self, needs: frozenset[Need]) -> dict[str, tuple[int, torch.dtype]]:
        width = self._config.hidden_size  # which SAM's last convolution has too
        return columns_of(self.module, 2 * width, width // self._config.num_attention_heads, needs)

    @torch.no_grad()
    def encode(self, images: Sequence[EncoderImage], needs: frozenset[Need]) -> Columns:
        made = [self._of_image(image, needs) for image in images]
        return {name: torch.cat([each[name] for each in made]) for name in made[0]}

    def encode_some(
        self, images: Sequence[EncoderImage], kept: torch.Tensor, lengths: Sequence[int]
    ) -> torch.Tensor:
        return self.encode(images, frozenset())[FEATURES][kept]

    def _of_image(self, image: EncoderImage, needs: frozenset[Need]) -> Columns:
        """Return the columns `[tokens, ...]` of an image in the decoder's order."""
        assert isinstance(image, ViewedImage)
        whole = {name: rows[0] for name, rows in self._of_views(image.pixels, needs).items()}
        if not len(image.crops):
            return whole
        fine = self._of_views(image.crops, needs)
        return {
            name: torch.cat([stitched(fine[name], image.tiles), rows])
            for name, rows in whole.items()
        }

    def _of_views(self, pixels: torch.Tensor, needs: frozenset[Need]) -> Columns:
        """Return the columns `[views, tokens, ...]` of views of one size."""
        patches = self._sam(pixels)
        with self._probe.capture(needs) as captured:
            seen = self.module(pixels, patches)
        own = patches.flatten(2).transpose(1, 2)
        columns = {FEATURES: torch.cat([seen[:, 1:], own], dim=-1)}
        for name, values in self._probe.columns(captured).items():
            of_tokens = last_rows(values, own.shape[1])  # without the class token
            columns[name] = of_tokens if name == Need.KEYS else _on_one_scale(of_tokens)
        return columns


def _on_one_scale(scores: torch.Tensor) -> torch.Tensor:
    """Return `[views, tokens]`, each score divided by the mean of its view."""
    mean = scores.mean(dim=1, keepdim=True)
    return scores / mean.clamp_min(torch.finfo(scores.dtype).tiny)


def stitched(rows: torch.Tensor, tiles: tuple[int, int]) -> torch.Tensor:
    """Return `[tokens, ...]`, the raster of all crops, of `[crops, tokens of a crop, ...]`."""
    side = isqrt(rows.shape[1])
    raster: torch.Tensor = rows.unflatten(0, tiles).unflatten(2, (side, side)).transpose(1, 2)
    return raster.flatten(0, 3)


def pixels_of_tokens(image: EncoderImage) -> torch.Tensor:
    """Return `[tokens, 3 * P * P]`, the pixels of each token in the decoder's order, those of a
    colour together."""
    assert isinstance(image, ViewedImage)
    whole = _cut(image.pixels)[0]
    if not len(image.crops):
        return whole
    return torch.cat([stitched(_cut(image.crops), image.tiles), whole])


def _cut(pixels: torch.Tensor) -> torch.Tensor:
    """Return `[views, tokens, 3 * P * P]` of `[views, 3, side, side]`."""
    squares = pixels.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))
    tokens: torch.Tensor = squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    return tokens
