"""The grid of Gemma 4's images, in tokens of `pooling_kernel_size` squared patches.

The processor gives every image the largest size of about its own shape that has at most
`max_soft_tokens` tokens, cuts it into patches in raster order, and fills up with patches of no
place. What has a place is a whole grid; the model's half gets its rows and columns in a field of
their own, which stays on the CPU: to read them from the patches' places the host would have to wait
for the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch
from transformers.models.gemma4.image_processing_gemma4 import get_aspect_ratio_preserving_size
from vllm.model_executor.models.gemma4_mm import _SUPPORTED_SOFT_TOKENS, _get_max_soft_tokens

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.settings.keys import KEY
from vllm_pruner.tower import EncoderImage

__all__ = ["GRIDS", "edge", "grids_of", "images", "largest", "layout", "seen"]

GRIDS = f"{KEY}_grid"
"""A field of an image on its way to the model: its rows and columns of tokens, `[2]`."""


def largest(info: Any) -> GridLayout:
    """Return the layout that vLLM profiles memory with, the squarest of those with most tokens; see
    `Family.largest`."""
    most = _most_tokens(info, {})
    rows = next(rows for rows in range(isqrt(most), 0, -1) if most % rows == 0)
    return GridLayout(rows, most // rows)


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> GridLayout:
    """Return the layout of an image after the processor has resized it; see `Family.layout`.

    vLLM writes this size down once more, in `_compute_num_soft_tokens`, for the placeholders.
    """
    vision = info.get_hf_config().vision_config
    side, pixels = vision.pooling_kernel_size, edge(vision)
    patches = _most_tokens(info, mm_kwargs) * side**2
    size = get_aspect_ratio_preserving_size(height, width, vision.patch_size, patches, side)
    return GridLayout(size[0] // pixels, size[1] // pixels)


def edge(vision_config: Any) -> int:
    """Return the side of a token in pixels."""
    return int(vision_config.patch_size * vision_config.pooling_kernel_size)


def _most_tokens(info: Any, mm_kwargs: Mapping[str, object]) -> int:
    """Return the most tokens of an image under a request's arguments, by vLLM's own rule."""
    said, _ = _get_max_soft_tokens(info.ctx.get_merged_mm_kwargs(mm_kwargs))
    if isinstance(said, int) and said in _SUPPORTED_SOFT_TOKENS:
        return said
    return int(info.get_hf_config().vision_config.default_output_length)


def grids_of(places: torch.Tensor, side: int) -> torch.Tensor:
    """Return `GRIDS` of images, `[images, 2]` int64.

    Args:
        places: `[images, patches, 2]`, the column and the row of each patch; -1 if it has none.
        side: patches on a side of a token.
    """
    return (places.amax(dim=1).flip(1) + 1) // side


def images(hf_config: Any, image_input: Any) -> list[EncoderImage]:
    """Return the images of a batch; see `Family.images`."""
    grids = image_input[GRIDS].tolist()  # on the CPU already
    return [
        EncoderImage(patches, GridLayout(rows, columns))
        for patches, (rows, columns) in zip(image_input["pixel_values"], grids, strict=True)
    ]


def seen(hf_config: Any, item: Mapping[str, Any]) -> torch.Tensor:
    """Return the picture that patches were cut from; see `Family.seen`.

    A patch is `[P, P, 3]`, flattened.
    """
    vision = hf_config.vision_config
    side, size = vision.pooling_kernel_size, vision.patch_size
    rows, columns = (tokens * side for tokens in item[GRIDS].flatten().tolist())
    patches = item["pixel_values"].flatten(0, -2)[: rows * columns]
    # rows, P and columns, P become height and width
    picture: torch.Tensor = patches.view(rows, columns, size, size, 3).permute(4, 0, 2, 1, 3)
    return picture.reshape(1, 3, rows * size, columns * size)
