"""The windows of Step's pictures and the whole picture behind them, and how many tokens they have.

vLLM's processor stretches a picture to a square, and cuts one of 728 pixels or more, or a long one,
into square windows, row by row, after it has been scaled to a whole number of them. A window that
reaches beyond a flat picture's edge is black there. Sizes are vLLM's, whatever the checkpoint says:
the model's own have to agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch
from torch.nn.functional import interpolate

from vllm_pruner.families.unsuited import check_counted
from vllm_pruner.layout.tiled_grid import TiledGrid
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.tower import EncoderImage
from vllm_pruner.worker.step_tower import WindowedImage

__all__ = ["images", "largest", "layout", "seen"]

_SIZES = ("image_size", "patch_size", "num_image_feature_size", "num_patch_feature_size")
"""Arguments of the processor that the model does not look at: side of the whole picture and of a
window in pixels, and the tokens of both."""


def largest(info: Any) -> TiledGrid:
    """Return the layout with which vLLM profiles memory; see `Family.largest`.

    Raises:
        ConfigError: the model makes another number of tokens than the processor has places for.
    """
    processor, hf_config = info.own_processor, info.get_hf_config()
    for pixels, tokens in zip(*_sizes_of(processor), strict=True):
        if (made := _side(hf_config, pixels) ** 2) != tokens:
            raise ConfigError(
                f"a picture of {pixels} pixels has {made} tokens by vision_config of config.json, "
                f"but vLLM's processor has places for {tokens}; allowed: a model with as many"
            )
    size = info.get_image_size_with_most_features()
    return _cut(info, size.height, size.width, {})


def _sizes_of(processor: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the sides in pixels of the whole picture and of a window, and their tokens."""
    image, window, *tokens = (int(getattr(processor, name)) for name in _SIZES)
    return (image, window), (tokens[0], tokens[1])


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> TiledGrid:
    """Return the layout of an image as the processor cuts it; see `Family.layout`.

    Raises:
        ConfigError: the request would have it cut otherwise than the model makes tokens, or it has
            more windows than any that vLLM allocates memory for.
    """
    check_counted(info.own_processor, mm_kwargs, _SIZES)
    found = _cut(info, height, width, mm_kwargs)
    if found.tiles > info.most_windows:
        raise ConfigError(
            f"an image of {width} x {height} pixels is cut into {found.tiles} windows; allowed: up "
            f"to {info.most_windows}, so one that is less long and narrow"
        )
    return found


def _cut(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> TiledGrid:
    """Return the layout of an image; vLLM passes a request's arguments on, the server's not."""
    processor = info.own_processor
    if "enable_patch" in mm_kwargs:
        processor = info.get_image_processor(enable_patch=mm_kwargs["enable_patch"])
    windows, _ = processor.patcher.get_num_patches(width, height)
    whole, part = (isqrt(tokens) for tokens in _sizes_of(processor)[1])
    return TiledGrid((whole, whole), part, windows) if windows else TiledGrid((whole, whole))


def _side(hf_config: Any, pixels: int) -> int:
    """Return the rows, and columns, of tokens of a square of that many pixels: its patches are
    halved twice, where a last one that is odd counts."""
    patches: int = pixels // hf_config.vision_config.patch_size
    return -(-patches // 4)


def images(hf_config: Any, image_input: Any) -> list[EncoderImage]:
    """Return the images of a batch; see `Family.images`."""
    counts = image_input["num_patches"].flatten().tolist()  # on the CPU already
    windows = image_input["patch_pixel_values"].split(counts)
    wholes = image_input["pixel_values"].split(1)
    return [
        WindowedImage(whole, _layout(hf_config, whole, those), those)
        for whole, those in zip(wholes, windows, strict=True)
    ]


def _layout(hf_config: Any, whole: torch.Tensor, windows: torch.Tensor) -> TiledGrid:
    side, part = (_side(hf_config, pixels.shape[-1]) for pixels in (whole, windows))
    return TiledGrid((side, side), part, len(windows)) if len(windows) else TiledGrid((side, side))


def seen(hf_config: Any, item: Mapping[str, Any]) -> torch.Tensor:
    """Return the whole picture and the windows, all as large as it; see `Family.seen`."""
    whole: torch.Tensor = item["pixel_values"].float().flatten(0, -4)
    windows = item["patch_pixel_values"].float()
    if not len(windows):
        return whole
    return torch.cat([whole, interpolate(windows, whole.shape[-2:], mode="nearest")])
