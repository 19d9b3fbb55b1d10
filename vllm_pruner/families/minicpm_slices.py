"""The whole picture and the slices of MiniCPM-V's images, and how many tokens they have.

The processor cuts a picture of more than `scale_resolution` squared pixels into at most
`max_slice_nums` slices, by the grid that suits its shape best. The whole picture and each slice are
scaled to about that many pixels, to sides of whole tokens: 4 x 4 patches or, if `downsample_mode`
is "4x", 2 x 2. A request may set both, also for images alone (`images_kwargs`).

The model's half gets the rows and columns of slices in a field of their own: what vLLM hands on is
the size of each slice. Both stay on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod, sqrt
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from vllm_pruner import compat
from vllm_pruner.layout.sliced_grid import SlicedGrid
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.keys import KEY
from vllm_pruner.tower import EncoderImage

__all__ = ["SLICES", "images", "item_layout", "largest", "layout", "seen", "size_with_most"]

SLICES = f"{KEY}_slices"
"""A field of an image on its way to the model: the rows and columns of its slices, `[2]`."""

_SIDE, _SIDE_4X = 4, 2
"""Rows, and columns, of patches in a token, and under `downsample_mode` "4x"."""

_SHAPES = 8192
"""How many shapes of pictures are tried for the one with most tokens: each 0.15 % longer than the
one before, from 1 : 500 to 500 : 1."""


def largest(info: Any) -> SlicedGrid:
    """Return the layout with which vLLM profiles memory; see `Family.largest`.

    Raises:
        ConfigError: this vLLM is 0.31.
    """
    if not compat.at_least((0, 32)):
        (architecture,) = info.get_hf_config().architectures
        raise ConfigError(
            f"architecture is {architecture}; allowed: vLLM 0.32 or newer, because 0.31 counts an "
            "image's slices without looking at what its request says"
        )
    return layout(info, *size_with_most(info), {})


def size_with_most(info: Any) -> tuple[int, int]:
    """Return height and width of an image with most tokens, of those that the limits allow. It is
    long: its sides are rounded to whole tokens, of which a short one has one at least."""
    processor, most = info.get_image_processor(), info.most_slices
    area, ratio = (most + 0.5) * processor.scale_resolution**2, info.prune_config.limits
    shapes = np.geomspace(1 / ratio.max_side_ratio, ratio.max_side_ratio, _SHAPES).tolist()
    sizes = [
        (max(1, round(sqrt(area / shape))), max(1, round(sqrt(area * shape)))) for shape in shapes
    ]
    return max(sizes, key=lambda size: _cut(processor, size, most, _SIDE).tokens)


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> SlicedGrid:
    """Return the layout of an image as the processor cuts it; see `Family.layout`."""
    processor = info.get_image_processor()
    merged = info._merge_and_resolve_mm_processor_kwargs(mm_kwargs)
    said: Mapping[str, Any] = merged.get("images_kwargs") or {}
    most, mode = said.get("max_slice_nums"), said.get("downsample_mode")
    most = info.most_slices if most is None else int(most)
    mode = processor.downsample_mode if mode is None else mode
    return _cut(processor, (height, width), most, _SIDE_4X if mode == "4x" else _SIDE)


def _cut(processor: Any, size: tuple[int, int], most: int, side: int) -> SlicedGrid:
    """Return the layout of an image.

    Args:
        processor: HF's, of images.
        size: the image's height and width.
        most: slices, at most.
        side: rows, and columns, of patches in a token.
    """
    scale, patch = processor.scale_resolution, processor.patch_size
    grid = processor.get_sliced_grid(size, most, scale)
    whole = processor.find_best_resize(size, scale, patch, allow_upscale=grid is None)
    of_whole = _tokens(whole, (1, 1), side * patch)
    if grid is None:
        return SlicedGrid(of_whole)
    refined = processor.get_refine_size(size, grid, scale, patch, allow_upscale=True)
    return SlicedGrid(of_whole, _tokens(refined, grid, side * patch), (grid[0], grid[1]))


def _tokens(size: Any, grid: Any, edge: int) -> tuple[int, int]:
    """Return rows and columns of tokens of each part of a picture of `size` that is cut into a
    `grid`, if a token is `edge` pixels wide."""
    return size[0] // (grid[0] * edge), size[1] // (grid[1] * edge)


def item_layout(hf_config: Any, item: Mapping[str, Any]) -> SlicedGrid:
    """Return the layout of a processed image; see `Family.item_layout`."""
    side = _SIDE if item["use_vit_merger"].flatten().tolist()[0] else _SIDE_4X
    whole, *parts = [(rows // side, columns // side) for rows, columns in _sizes(item)]
    down, across = item[SLICES].flatten().tolist()
    return SlicedGrid(whole, parts[0], (down, across)) if parts else SlicedGrid(whole)


def _sizes(item: Mapping[str, Any]) -> list[list[int]]:
    """Return rows and columns of patches of the whole picture and of each slice."""
    sizes: list[list[int]] = item["tgt_sizes"].reshape(-1, 2).tolist()  # on the CPU already
    return sizes


def images(hf_config: Any, image_input: Any) -> list[EncoderImage]:
    """Return the images of a batch; see `Family.images`."""
    names = ("tgt_sizes", "use_vit_merger", SLICES)
    each = zip(image_input["pixel_values"], *(image_input[name] for name in names), strict=True)
    return [
        EncoderImage(pixels, item_layout(hf_config, dict(zip(names, fields, strict=True))))
        for pixels, *fields in each
    ]


def seen(hf_config: Any, item: Mapping[str, Any]) -> torch.Tensor:
    """Return the whole picture and the slices, all as large as it; see `Family.seen`."""
    pixels = item["pixel_values"].flatten(0, -4)
    pieces = [_raster(*each) for each in zip(pixels, _sizes(item), strict=True)]
    whole = pieces[0].shape[-2:]
    return torch.cat([interpolate(piece, whole, mode="nearest") for piece in pieces])


def _raster(pixels: torch.Tensor, size: list[int]) -> torch.Tensor:
    """Return the picture `[1, 3, height, width]` that patches `[3, P, patches * P]` of `size` rows
    and columns were cut from; more of them are padding."""
    patch = pixels.shape[1]
    patches = pixels[..., : prod(size) * patch].unflatten(2, (*size, patch))
    picture: torch.Tensor = patches.permute(0, 2, 1, 3, 4).flatten(3).flatten(1, 2)
    return picture.unsqueeze(0)
