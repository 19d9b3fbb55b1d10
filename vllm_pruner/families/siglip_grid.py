"""What models with SigLIP's tower at a picture's own resolution have in common (PaddleOCR-VL,
Keye-VL): one grid of tokens, each 2 x 2 patches, which the processor has in raster order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from vllm.multimodal.parse import ImageSize

from vllm_pruner.families.glm_grid import longest_of
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.tower import EncoderImage
from vllm_pruner.worker.paddle_tower import MERGE
from vllm_pruner.worker.thinned import in_token_order

__all__ = ["images", "largest", "layout_by", "seen", "size_of"]

_BOUNDS = (("shortest_edge", "min_pixels"), ("longest_edge", "max_pixels"))
"""Fewest and most pixels, by the names of transformers' processor and of the checkpoint's own."""


def _edge(info: Any) -> int:
    """Return the side of a token in pixels."""
    vision = info.get_hf_config().vision_config
    return int(vision.patch_size * vision.spatial_merge_size)


def _pixels(info: Any, mm_kwargs: Mapping[str, object]) -> list[int]:
    """Return the fewest and the most pixels of an image, as vLLM reads them of a request.

    Raises:
        ConfigError: it says so where vLLM does not look, or names no number of pixels.
    """
    images, merged = info.get_image_processor(**mm_kwargs), info.ctx.get_merged_mm_kwargs(mm_kwargs)
    theirs: Any = merged.get("images_kwargs") or {}
    if found := {"size", "min_pixels", "max_pixels"}.intersection(theirs):
        name = min(found)
        raise ConfigError(f"images_kwargs has {name}; allowed: {name} in mm_processor_kwargs")
    size = {**dict(images.size), **(merged.get("size") or {})}
    bounds: list[Any] = [
        size.get(ours, size.get(own)) if merged.get(own) is None else merged[own]
        for ours, own in _BOUNDS
    ]
    if not all(isinstance(each, int) and each > 0 for each in bounds):
        raise ConfigError(
            f"an image's fewest and most pixels are {bounds}; allowed: whole numbers from 1"
        )
    return bounds


def largest(info: Any) -> GridLayout:
    """Return the layout with which vLLM profiles memory; see `Family.largest`. vLLM assumes a
    square, which may have fewer tokens than an oblong."""
    return longest_of(_pixels(info, {})[1] // _edge(info) ** 2)


def layout_by(
    smart_resize: Callable[..., tuple[int, int]],
    info: Any,
    height: int,
    width: int,
    mm_kwargs: Mapping[str, object],
) -> GridLayout:
    """Return the layout of an image after the processor has resized it by vLLM's function; see
    `Family.layout`."""
    edge = _edge(info)
    rows, columns = smart_resize(height, width, edge, *_pixels(info, mm_kwargs))
    return GridLayout(rows // edge, columns // edge)


def size_of(info: Any, layout: GridLayout) -> ImageSize:
    """Return the size in pixels of an image with a layout."""
    edge = _edge(info)
    return ImageSize(width=layout.columns * edge, height=layout.rows * edge)


def images(hf_config: Any, image_input: Any) -> list[EncoderImage]:
    """Return the images of a batch, their patches in the order of tokens; see `Family.images`."""
    grids = image_input["image_grid_thw"].tolist()  # on the CPU already
    pixels = image_input["pixel_values"]
    if isinstance(pixels, torch.Tensor) and pixels.dim() == 4:  # vLLM 0.33 has them joined
        pixels = pixels.split([rows * columns for _, rows, columns in grids])
    return [
        EncoderImage(
            in_token_order(patches.flatten(1), rows, columns, MERGE),
            GridLayout(rows // MERGE, columns // MERGE),
        )
        for patches, (_, rows, columns) in zip(pixels, grids, strict=True)
    ]


def seen(hf_config: Any, item: Mapping[str, Any]) -> torch.Tensor:
    """Reassemble the picture from its patches, `[3, P, P]` each; see `Family.seen`."""
    _, rows, columns = item["image_grid_thw"].flatten().tolist()
    patches = item["pixel_values"].flatten(0, -4).unflatten(0, (rows, columns))
    picture: torch.Tensor = patches.permute(2, 0, 3, 1, 4)
    return picture.flatten(3).flatten(1, 2).unsqueeze(0)
