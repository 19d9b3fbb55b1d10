"""The tiles of Llama 4's images, and how much of each shows the picture.

The processor chooses, of the grids of at most `max_patches` tiles, the one that a picture would be
enlarged least to fill or, if all are smaller, shrunk least. It puts the picture into the upper left
corner, enlarged no further than to the size of a tile, and fills the rest up with black: over a
quarter of the 2 x 2 tiles of 336 pixels that a photo of 640 x 480 gets. The model's half gets the
rows and columns of tokens with some of the picture in a field of their own, which stays on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from transformers.image_utils import SizeDict
from transformers.models.llama4.image_processing_llama4 import (
    find_supported_resolutions,
    get_best_fit,
    get_max_res_without_distortion,
)

from vllm_pruner.layout.padded_tiles import PaddedTiles
from vllm_pruner.settings.keys import KEY
from vllm_pruner.tower import EncoderImage

__all__ = ["SHOWN", "images", "largest", "layout", "layout_of_item", "shown"]

SHOWN = f"{KEY}_shown"
"""A field of an image on its way to the model: the rows and columns of tokens of its grid of tiles
that show some of the picture, `[2]`."""


class _Fit(NamedTuple):
    """Where the processor puts a picture."""

    grid: tuple[int, int]
    """Rows and columns of tiles."""

    size: tuple[int, int]
    """The picture's height and width there, in pixels."""


def largest(info: Any) -> PaddedTiles:
    """Return the layout with which vLLM profiles memory; see `Family.largest`."""
    size = info.get_image_size_with_most_features()
    return layout(info, size.height, size.width, {})


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> PaddedTiles:
    """Return the layout of an image; see `Family.layout`."""
    hf_config = info.get_hf_config()
    fit = _fit_of(info, height, width, mm_kwargs)
    return _layout(hf_config, fit.grid, _shown(hf_config, fit))


def shown(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> tuple[int, int]:
    """Return `SHOWN` of an image of that size; see `Family.layout` for the arguments."""
    return _shown(info.get_hf_config(), _fit_of(info, height, width, mm_kwargs))


def layout_of_item(hf_config: Any, item: Mapping[str, Any]) -> PaddedTiles:
    """Return the layout of a processed image, given the tensors of its fields."""
    rows, columns = item["aspect_ratios"].flatten().tolist()
    below, right = item[SHOWN].flatten().tolist()
    return _layout(hf_config, (rows, columns), (below, right))


def images(hf_config: Any, image_input: Any) -> list[EncoderImage]:
    """Return the images of a batch; see `Family.images`."""
    names = ("patches_per_image", "aspect_ratios", SHOWN)
    counts, grids, parts = (image_input[name].tolist() for name in names)  # on the CPU already
    tiles = image_input["pixel_values"].split(counts)
    return [
        EncoderImage(pixels, _layout(hf_config, tuple(grid), tuple(part)))
        for pixels, grid, part in zip(tiles, grids, parts, strict=True)
    ]


def _fit_of(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> _Fit:
    """Return where the processor puts an image; see `Family.layout` for the arguments."""
    processor = info.get_hf_processor(**mm_kwargs).image_processor
    side = info.get_hf_config().vision_config.image_size
    return _fit((height, width), info.get_max_num_tiles(), side, processor.resize_to_max_canvas)


@lru_cache(maxsize=1024)
def _fit(size: tuple[int, int], most: int, side: int, enlarges: bool) -> _Fit:
    """Return where the processor puts an image.

    Args:
        size: the image's height and width in pixels.
        most: tiles, at most.
        side: of a tile, in pixels.
        enlarges: the processor's `resize_to_max_canvas`.
    """
    sizes = find_supported_resolutions(most, SizeDict(height=side, width=side))
    best = get_best_fit(size, torch.tensor(sizes), resize_to_max_canvas=enlarges)
    whole = (int(best[0]), int(best[1]))
    room = whole
    if not enlarges:
        room = (min(max(size[0], side), whole[0]), min(max(size[1], side), whole[1]))
    height, width = get_max_res_without_distortion(size, room)
    return _Fit((whole[0] // side, whole[1] // side), (max(1, height), max(1, width)))


def _shown(hf_config: Any, fit: _Fit) -> tuple[int, int]:
    """Return the rows and columns of tokens that show some of a picture."""
    vision = hf_config.vision_config
    edge = vision.image_size // _side(vision)
    return -(-fit.size[0] // edge), -(-fit.size[1] // edge)


def _side(vision: Any) -> int:
    """Return the rows, and columns, of tokens in a tile."""
    return int(vision.image_size // vision.patch_size * vision.pixel_shuffle_ratio)


def _layout(hf_config: Any, grid: tuple[int, int], part: tuple[int, int]) -> PaddedTiles:
    """Return the layout of a grid of tiles of which so many rows and columns of tokens show some of
    the picture."""
    side = _side(hf_config.vision_config)
    below, right = (
        [min(max(length - tile * side, 0), side) for tile in range(tiles)]
        for length, tiles in zip(part, grid, strict=True)
    )
    of_tiles = [(rows, columns) for rows in below for columns in right]
    if len(of_tiles) > 1:
        of_tiles.append((side, side))  # the whole picture
    return PaddedTiles(side, len(of_tiles), fixed_shares=True, shown=tuple(of_tiles))
