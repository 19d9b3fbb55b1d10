"""The grid of Kimi-VL's images, given by `image_grid_hws` in patches.

The processor makes an image of more whole patches than its `in_token_limit` smaller, then pads it
to whole tokens. Its tower has positions for less than 512 patches a side, which it refuses to
exceed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.tower import EncoderImage

__all__ = ["images", "largest", "largest_size", "layout", "raster", "seen", "size_with_most"]

_LONGEST = 512
"""Patches on a side that have no positions any more."""


def largest(info: Any) -> GridLayout:
    """Return the layout that vLLM profiles memory with; see `Family.largest`."""
    height, width = largest_size(info)
    return layout(info, height, width, {})


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> GridLayout:
    """Return the layout of an image as the processor pads it; see `Family.layout`."""
    rows, columns = _grid(np.array(height), np.array(width), *_arguments(info))
    return GridLayout(int(rows), int(columns))


def largest_size(info: Any) -> tuple[int, int]:
    """Return height and width of an image with most tokens: not a square, which has less padding
    than a narrow one."""
    return _largest_size(*_arguments(info))


def _arguments(info: Any) -> tuple[int, int, int, int]:
    """Return the side of a patch in pixels, those of a token in patches, and the limit."""
    images = info.get_hf_processor().image_processor
    return (images.patch_size, *images.merge_kernel_size, images.in_token_limit)


def _grid(
    height: np.ndarray, width: np.ndarray, patch: int, down: int, across: int, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of tokens of images of so many pixels."""
    whole = (height // patch) * (width // patch)
    scale = np.sqrt(limit / np.maximum(whole, limit))
    rows = np.ceil(np.floor(height * scale) / (down * patch))
    return rows, np.ceil(np.floor(width * scale) / (across * patch))


@cache
def _largest_size(patch: int, down: int, across: int, limit: int) -> tuple[int, int]:
    def tokens(height: np.ndarray, width: np.ndarray) -> np.ndarray:
        rows, columns = _grid(height, width, patch, down, across, limit)
        fits = (rows * down < _LONGEST) & (columns * across < _LONGEST)
        found: np.ndarray = rows * columns * fits
        return found

    return size_with_most(tokens, patch)


def size_with_most(
    tokens: Callable[[np.ndarray, np.ndarray], np.ndarray], patch: int
) -> tuple[int, int]:
    """Return height and width of the image that has most tokens, of those that just lack a pixel
    for one more patch, up to twice the longest side. Twice as many patches on both sides are scaled
    to the same, with less to pad.

    Args:
        tokens: returns how many an image of this height and width has, 0 if it is refused.
        patch: the side of one in pixels.
    """
    sides = patch * (1 + np.arange(1, 2 * _LONGEST)) - 1
    found = tokens(sides[:, None], sides[None])
    height, width = np.unravel_index(np.argmax(found), found.shape)
    return int(sides[height]), int(sides[width])


def images(hf_config: Any, image_input: Any) -> list[EncoderImage]:
    """Return the images of a batch; see `Family.images`."""
    grids = image_input["image_grid_hws"].tolist()  # on the CPU already
    pixels = image_input["pixel_values"].split([rows * columns for rows, columns in grids])
    down, across = hf_config.vision_config.merge_kernel_size
    return [
        EncoderImage(patches, GridLayout(rows // down, columns // across))
        for patches, (rows, columns) in zip(pixels, grids, strict=True)
    ]


def seen(hf_config: Any, item: Mapping[str, Any]) -> torch.Tensor:
    """Return the picture that patches were cut from; see `Family.seen`."""
    rows, columns = item["image_grid_hws"].flatten().tolist()
    return raster(item["pixel_values"], rows, columns)


def raster(patches: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return the picture `[1, 3, height, width]` of patches `[patches, 3, P, P]` in raster
    order."""
    by_row = patches.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4)
    picture: torch.Tensor = by_row.flatten(3).flatten(1, 2)
    return picture.unsqueeze(0)
