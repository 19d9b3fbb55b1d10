"""The two grids of Molmo2's images: the whole picture's, and the finer one of its crops.

The processor stretches a picture to the size of a crop, and to that of a grid of at most
`max_crops` crops, of the shape that enlarges it least. The crops overlap, so that patches at their
edges have seen what is beyond, and what overlaps is left out behind the tower: what is left of all
crops is one raster. Squares of patches are pooled to a token in either; at an uneven edge a square
is partly empty.

The model's half gets both grids in a field of their own, which stays on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch
from torch.nn.functional import interpolate
from vllm.multimodal.parse import ImageSize

from vllm_pruner.families.unsuited import check_counted
from vllm_pruner.layout.two_grids import TwoGrids
from vllm_pruner.settings.keys import KEY
from vllm_pruner.tower import EncoderImage
from vllm_pruner.worker.pooling_tower import PooledImage

__all__ = ["GRIDS", "POOLING", "grids", "images", "largest", "layout", "seen"]

GRIDS = f"{KEY}_grids"
"""A field of an image on its way to the model, `[7]`: its number of crops, rows and columns of
tokens of the whole picture and of the finer grid, and whether rows of either end in a mark."""

POOLING = "image_token_pooling"
"""vLLM's field with the patches of each token, `[tokens, patches of a token]`, counted in its own
image, -1 where there is none. vLLM's class makes places in a batch of them, under another name."""

_CUTTING = ("max_crops", "overlap_margins", "patch_size", "pooling_size", "size")
"""Arguments by which the processor cuts a picture. vLLM counts by those of the checkpoint alone."""


def largest(info: Any) -> TwoGrids:
    """Return the layout with which vLLM profiles memory; see `Family.largest`."""
    size = info.get_image_size_with_most_features()
    return layout(info, size.height, size.width, {})


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> TwoGrids:
    """Return the layout of an image as vLLM counts it; see `Family.layout`.

    Raises:
        ConfigError: the request or the server would have it cut otherwise.
    """
    return _layout(grids(info, ImageSize(width=width, height=height), mm_kwargs))


def grids(info: Any, size: ImageSize, mm_kwargs: Mapping[str, object]) -> list[int]:
    """Return `GRIDS` of an image; see `layout`."""
    processor = info.get_hf_processor(**mm_kwargs)
    images = processor.image_processor
    said = info.ctx.get_merged_mm_kwargs(mm_kwargs)
    check_counted(images, {**said, **(said.get("images_kwargs") or {})}, _CUTTING)
    at = {"image_width": size.width, "image_height": size.height, "image_processor": images}
    across, down = info.select_tiling(**at)
    columns, rows = info.get_base_grid_size(images)
    fine_columns, fine_rows = info.get_patches_grid_size(**at)
    breaks = processor.image_use_col_tokens
    own = processor.use_single_crop_col_tokens
    return [
        *(1 + int(across * down), rows, columns, fine_rows, fine_columns),
        *(int(breaks if own is None else own), int(breaks)),
    ]


def _layout(found: list[int]) -> TwoGrids:
    _, rows, columns, fine_rows, fine_columns, *breaks = map(int, found)
    return TwoGrids((rows, columns), (fine_rows, fine_columns), (bool(breaks[0]), bool(breaks[1])))


def images(hf_config: Any, image_input: Any) -> list[EncoderImage]:
    """Return the images of a batch; see `Family.images`."""
    each = image_input[GRIDS].tolist()  # on the CPU already
    layouts = [_layout(found) for found in each]
    crops = image_input["pixel_values"].split([found[0] for found in each])
    pooling = image_input[POOLING].split([layout.tokens for layout in layouts])
    return [PooledImage(*parts) for parts in zip(crops, layouts, pooling, strict=True)]


def seen(hf_config: Any, item: Mapping[str, Any]) -> torch.Tensor:
    """Return the picture as the tokens of either grid have it, both as large as the first one; see
    `Family.seen`."""
    layout = _layout(item[GRIDS].flatten().tolist())
    patches = torch.as_tensor(item["pixel_values"]).flatten(0, -2)
    pooling = torch.as_tensor(item[POOLING]).reshape(layout.tokens, -1)
    pictures = [
        _picture(patches, part.unflatten(0, (grid.rows, grid.columns)))
        for part, grid in zip(pooling.split(layout.sizes), layout.grids, strict=True)
    ]
    first = tuple(pictures[0].shape[-2:])
    return torch.cat([interpolate(each.float(), first, mode="bilinear") for each in pictures])


def _picture(patches: torch.Tensor, pooling: torch.Tensor) -> torch.Tensor:
    """Return `[1, 3, height, width]`, without what tokens at an edge lack.

    Args:
        patches: `[patches, values]`, colours last.
        pooling: `[rows, columns, patches of a token]`, squares of these; -1 where there is none.
    """
    side, edge = isqrt(pooling.shape[2]), isqrt(patches.shape[1] // 3)
    raster = pooling.unflatten(2, (side, side)).transpose(1, 2).flatten(2, 3).flatten(0, 1)
    there = raster >= 0
    raster = raster[there.any(dim=1)][:, there.any(dim=0)]
    cells = patches[raster].unflatten(2, (edge, edge, 3))
    picture: torch.Tensor = cells.permute(4, 0, 2, 1, 3).flatten(3, 4).flatten(1, 2)
    return picture.unsqueeze(0)
