"""The tiles of LFM2-VL's images and the whole picture behind them, and how many tokens they have.

The processor makes one grid of at most `max_image_tokens` of a picture of up to about twice as
many. A larger one is stretched to the grid of square tiles that suits its shape best, of
`min_tiles` to `max_tiles`; the whole picture follows and keeps its shape. A token is 2 x 2 patches.

A request may set how pictures are cut, but vLLM does not look at all that the processor looks at:
what it would count otherwise than it is cut is refused, or the engine would get other rows than the
prompt has places for.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod, sqrt
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from vllm_pruner.layout.tiled_grid import TiledGrid
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.tower import EncoderImage

__all__ = ["images", "largest", "layout", "seen", "size_with_most"]

_SCALE = ("encoder_patch_size", "downsample_factor")
_TILES = ("min_tiles", "max_tiles", "tile_size")
_BOUNDS = ("max_image_tokens", "min_image_tokens", "max_pixels_tolerance")
_WAYS = ("do_image_splitting", "use_thumbnail")
"""Names of the processor's arguments; the last do nothing if `min_tiles` and `max_tiles` are 1."""

_SHAPES = 2048
"""How many shapes of pictures are tried for the one with most tokens: each 0.6 % longer than the
one before, from 1 : 500 to 500 : 1."""


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> TiledGrid:
    """Return the layout of an image as the processor cuts it; see `Family.layout`.

    Raises:
        ConfigError: vLLM counts other tokens than the processor makes, or the processor makes none:
            the whole picture is too long to lie beside tiles.
    """
    said = _arguments(info, mm_kwargs)
    found = _cut(info, height, width, said)
    if found.tiles and prod(found.whole) > (most := _room(found, said)):
        raise ConfigError(
            f"an image of {width} x {height} pixels is {prod(found.whole)} tokens beside its tiles;"
            f" allowed: up to {most}, so one that is less long and narrow, or has fewer pixels"
        )
    return found


def _arguments(info: Any, mm_kwargs: Mapping[str, object]) -> dict[str, Any]:
    """Return the processor's arguments for an image."""
    processor, config = info.get_image_processor(), info.get_hf_config()
    stock = info.ctx.get_merged_mm_kwargs(mm_kwargs)
    own = {**stock, **(stock.get("images_kwargs") or {})}
    of_model = (config.vision_config.patch_size, config.downsample_factor)
    fixed = {**dict(zip(_SCALE, of_model, strict=True)), **dict.fromkeys(_WAYS, True)}
    said: dict[str, Any] = {}
    for name in (*_SCALE, *_TILES, *_BOUNDS, *_WAYS):
        default = getattr(processor, name)
        said[name] = own.get(name, default)
        counted = fixed.get(name, stock.get(name, default))
        is_idle = name in _WAYS and said["min_tiles"] == said["max_tiles"] == 1
        if said[name] != counted and not is_idle:
            raise ConfigError(
                f"{name} of the image processor is {said[name]!r}; allowed: {counted!r}, by which "
                "vLLM counts an image's tokens"
            )
    return said


def _cut(info: Any, height: int, width: int, said: Mapping[str, Any]) -> TiledGrid:
    """Return the layout of an image, given the processor's arguments."""
    size = {"height": height, "width": width}
    scale, (least, most) = _some(said, _SCALE), (said[name] for name in _TILES[:2])
    edge = prod(scale.values())
    across, down = info.smart_resize(**size, **scale, **_some(said, _BOUNDS[:2]))
    whole = (down // edge, across // edge)
    bounds = _some(said, ("max_image_tokens", "max_pixels_tolerance"))
    if least == most == 1 or not info._is_image_too_large(**size, **scale, **bounds):
        return TiledGrid(whole)
    *_, tiles = info._get_grid_layout(**size, **_some(said, _TILES))
    side = said["tile_size"] // edge
    return TiledGrid(whole, side, tiles) if tiles > 1 else TiledGrid((side, side))


def _some(said: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: said[name] for name in names}


def _room(found: TiledGrid, said: Mapping[str, Any]) -> int:
    """Return how many tokens the whole picture may have beside tiles."""
    return max(int(said["max_image_tokens"]), found.side**2)


def largest(info: Any) -> TiledGrid:
    """Return the layout with which vLLM profiles memory; see `Family.largest`."""
    return layout(info, *size_with_most(info), {})


def size_with_most(info: Any) -> tuple[int, int]:
    """Return height and width of an image with most tokens, of those that the limits allow: large
    enough for most tiles. It may be long, since the sides of the whole picture are rounded down to
    whole tokens, of which a short one has one at least."""
    said, ratio = _arguments(info, {}), info.prune_config.limits.max_side_ratio
    token = said["max_image_tokens"] * prod(said[name] for name in _SCALE) ** 2
    area = 2 * max(token * said["max_pixels_tolerance"], said["max_tiles"] * said["tile_size"] ** 2)
    shapes = np.geomspace(1 / ratio, ratio, _SHAPES).tolist()
    sizes = [
        (max(1, round(sqrt(area / shape))), max(1, round(sqrt(area * shape)))) for shape in shapes
    ]
    found = {size: _cut(info, *size, said) for size in sizes}
    fit = [
        s for s, each in found.items() if not each.tiles or prod(each.whole) <= _room(each, said)
    ]
    return max(fit, key=lambda size: found[size].tokens)


def images(hf_config: Any, image_input: Any) -> list[EncoderImage]:
    """Return the images of a batch; see `Family.images`."""
    counts = image_input["num_patches"].tolist()  # on the CPU already, and so are sizes
    sizes = image_input["spatial_shapes"].split(counts)
    return [
        EncoderImage(crops, _of_sizes(hf_config, each.tolist()))
        for crops, each in zip(image_input["pixel_values"].split(counts), sizes, strict=True)
    ]


def _of_sizes(hf_config: Any, sizes: list[list[int]]) -> TiledGrid:
    """Return the layout of a processed image, given rows and columns of patches of its crops."""
    edge = hf_config.downsample_factor
    *tiles, whole = [(rows // edge, columns // edge) for rows, columns in sizes]
    return TiledGrid(whole, tiles[0][0] if tiles else 0, len(tiles))


def seen(hf_config: Any, item: Mapping[str, Any]) -> torch.Tensor:
    """Return the whole picture and the tiles, all as large as it; see `Family.seen`."""
    patch, sizes = hf_config.vision_config.patch_size, item["spatial_shapes"].tolist()
    pieces = [_raster(*each, patch) for each in zip(item["pixel_values"], sizes, strict=True)]
    whole = pieces[-1].shape[-2:]
    shown = [interpolate(piece, whole, mode="nearest") for piece in pieces]
    return torch.cat(shown[-1:] + shown[:-1])


def _raster(patches: torch.Tensor, size: list[int], patch: int) -> torch.Tensor:
    """Return the picture `[1, 3, height, width]` that patches `[most, P * P * 3]` of `size` rows
    and columns were cut from; more of them are padding."""
    grid = patches[: prod(size)].unflatten(1, (patch, patch, 3)).unflatten(0, size)
    picture: torch.Tensor = grid.permute(4, 0, 2, 1, 3).flatten(3).flatten(1, 2)
    return picture.unsqueeze(0)
