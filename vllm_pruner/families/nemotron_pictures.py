"""The pictures of Nemotron Nano VL, by vLLM's processor of it: tiles and a thumbnail, as
InternVL's, or, of a checkpoint whose tower has a `min_num_patches`, one grid of any shape.

Such a grid has about as many patches as the picture, within the tower's bounds and what the context
has room for. Stock vLLM lets the pictures of a message share that room, so that one has fewer
tokens beside others, unless it is cached from a message without them. Here each has the size that
it has alone: what is kept of it does not hang on its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import TYPE_CHECKING, Any

from PIL import Image
from vllm.multimodal.parse import ImageSize
from vllm.transformers_utils.processors.nano_nemotron_vl import (
    DynamicResolutionImageTiler,
    NanoNemotronVLProcessor,
)

from vllm_pruner.families.unsuited import check_one_grid, check_shrinking
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.tile_layout import TileLayout
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.keys import KEY
from vllm_pruner.tower import EncoderImage

if TYPE_CHECKING:
    import torch

    from vllm_pruner.methods.base import Method

__all__ = [
    "PICTURES",
    "OwnSizes",
    "check_method",
    "has_any_shape",
    "images",
    "largest",
    "largest_size",
    "layout",
    "seen",
    "sizes_of",
]

PICTURES = f"{KEY}_pictures"
"""A field of a batch in the model: its pixels, `[tiles, 3, height, width]`, or of each picture of
any shape `[3, height, width]`. vLLM's own field has the latter cut into patches."""

_TOKEN = 2
"""Rows, and columns, of patches in a token: vLLM's pixel shuffle of a grid knows no others."""


def has_any_shape(hf_config: Any) -> bool:
    """Return whether pictures are of any shape, or else tiles."""
    return bool(NanoNemotronVLProcessor.use_dynamic_resolution(hf_config))


class OwnSizes(DynamicResolutionImageTiler):
    """vLLM's rule for the sizes of pictures of any shape, by which each is alone."""

    @classmethod
    def of(cls, hf_config: Any, max_model_len: int) -> OwnSizes | None:
        """Return the rule of a model; None if its pictures are tiles."""
        if not has_any_shape(hf_config):
            return None
        bounds = hf_config.vision_config.args
        return cls(
            max_model_len=max_model_len,
            patch_size=hf_config.patch_size,
            downsample_ratio=hf_config.downsample_ratio,
            min_num_patches=bounds["min_num_patches"],
            max_num_patches=bounds["max_num_patches"],
            norm_mean=hf_config.norm_mean,
            norm_std=hf_config.norm_std,
        )

    @property
    def room(self) -> int:
        """Tokens that the context has room for, if there is nothing but a picture."""
        return int(self.max_num_tokens_available(text_prompt_length=0))

    def compute_params(self, media_list: list[Image.Image], num_tokens_available: int) -> list[Any]:
        stock = super().compute_params
        return [stock([media], self.room)[0] for media in media_list]


class _Sized(Image.Image):
    """What vLLM's rule looks at of a picture, without its pixels."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self._height_and_width = height, width

    @property
    def height(self) -> int:
        return self._height_and_width[0]

    @property
    def width(self) -> int:
        return self._height_and_width[1]


def largest(info: Any) -> TileLayout | GridLayout:
    """Return the layout with the most tokens; see `Family.largest`.

    Raises:
        ConfigError: the tokens are in column order, as in no published Nemotron.
    """
    if (version := info.get_hf_config().ps_version) == "v1":
        raise ConfigError(f"ps_version is {version!r}; allowed: 'v2', whose tokens are in rows")
    size = largest_size(info)
    return layout(info, size.height, size.width, {})


def largest_size(info: Any) -> ImageSize:
    """Return the size of an image with most tokens: of any shape, the squarest of these."""
    if info.sizes is None:
        tiles = info.get_hf_processor().max_num_tiles
        side = info.get_hf_config().force_image_size
        return ImageSize(width=side * tiles, height=side)
    hf_config = info.get_hf_config()
    bounds = hf_config.vision_config.args
    patches = info.sizes.room * _TOKEN**2
    if (most := bounds["max_num_patches"]) > 0:
        patches = min(patches, most)
    tokens = max(patches, bounds["min_num_patches"]) // _TOKEN**2
    rows = next(rows for rows in range(isqrt(tokens), 0, -1) if tokens % rows == 0)
    side = hf_config.patch_size * _TOKEN
    return ImageSize(width=tokens // rows * side, height=rows * side)


def layout(
    info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]
) -> TileLayout | GridLayout:
    """Return the layout of an image, as vLLM sizes it; see `Family.layout`."""
    if info.sizes is not None:
        (found,) = info.sizes.compute_params([_Sized(height, width)], info.sizes.room)
        columns, rows = found.patch_size
        return GridLayout(rows // _TOKEN, columns // _TOKEN)
    processor = info.get_hf_processor(**mm_kwargs)
    tokens = processor.get_num_image_tokens(
        image_width=width, image_height=height, max_num_tiles=processor.max_num_tiles
    )
    return _of_tiles(info.get_hf_config(), tokens // processor.num_image_token)


def check_method(hf_config: Any, method: Method) -> None:
    """Refuse methods that this kind of pictures has no place for; see `Family.check_method`."""
    if has_any_shape(hf_config):
        check_shrinking(hf_config, method, smaller="max_num_patches", place="config.json")
    else:
        check_one_grid(hf_config, method)


def _of_tiles(hf_config: Any, tiles: int) -> TileLayout:
    side = hf_config.force_image_size // hf_config.patch_size
    return TileLayout(int(side * hf_config.downsample_ratio), tiles)


def images(hf_config: Any, image_input: Any) -> list[EncoderImage]:
    """Return the images of a batch; see `Family.images`."""
    pictures = image_input[PICTURES]
    if not has_any_shape(hf_config):
        counts = [int(count) for count in image_input["num_patches"]]  # on the CPU already
        return [
            EncoderImage(tiles, _of_tiles(hf_config, len(tiles)))
            for tiles in pictures.split(counts)
        ]
    return [EncoderImage(picture[None], _of_shape(hf_config, picture)) for picture in pictures]


def _of_shape(hf_config: Any, picture: torch.Tensor) -> GridLayout:
    side = hf_config.patch_size * _TOKEN
    return GridLayout(*(pixels // side for pixels in picture.shape[1:]))


def sizes_of(hf_config: Any, pictures: Any) -> dict[str, Any]:
    """Return vLLM's fields with the sizes of pictures of any shape, given their pixels; none of
    tiles."""
    if pictures is None or not has_any_shape(hf_config):
        return {}
    return {
        "imgs_sizes": [tuple(each.shape[1:]) for each in pictures],
        "num_tokens_per_image": [_of_shape(hf_config, each).tokens for each in pictures],
    }


def seen(hf_config: Any, item: Mapping[str, Any]) -> torch.Tensor:
    """Return the picture, or its tiles, the thumbnail first; see `Family.seen`."""
    pixels: torch.Tensor = item["pixel_values_flat"].float()
    return pixels[None] if pixels.ndim == 3 else pixels.roll(1, dims=0)
