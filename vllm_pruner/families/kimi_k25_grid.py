"""The grid of Kimi-K2.5's images, given by `grid_thws` in patches: of an image one frame.

`media_proc_cfg` in preprocessor_config.json bounds an image's patches, all of them and those of a
side; the processor makes a larger image smaller, then pads it to whole tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch

from vllm_pruner.families.kimi_grid import raster, size_with_most
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.tower import EncoderImage

__all__ = ["images", "largest", "largest_size", "layout", "seen"]


class _Rule(NamedTuple):
    """How the processor sizes images."""

    patch: int
    """The side of a patch in pixels."""

    down: int
    """Patches of a token, below each other."""

    across: int
    """Patches of a token, beside each other."""

    most: int
    """Whole patches of an image."""

    longest: int
    """Patches of a side."""

    def grid(self, height: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and columns of tokens of images of so many pixels. Every operation is the
        processor's own, in its order: a rounding may cost a row."""
        side = self.longest * self.patch
        whole = np.maximum(width // self.patch, 1.0) * np.maximum(height // self.patch, 1.0)
        scale = np.minimum(1.0, np.sqrt(self.most / whole))
        scale = np.minimum(scale, np.minimum(side / width, side / height))
        sides = ((height, self.down), (width, self.across))
        rows, columns = (
            np.ceil(np.clip(np.floor(pixels * scale), 1, side) / (merged * self.patch))
            for pixels, merged in sides
        )
        return rows, columns


def largest(info: Any, projector: str = "patchmerger") -> GridLayout:
    """Return the layout that vLLM profiles memory with; see `Family.largest`.

    Args:
        info: vLLM's processing info.
        projector: the kind that the family's tower knows.

    Raises:
        ConfigError: the checkpoint's projector or processor is none that vtprune knows.
    """
    vision, config = info.get_hf_config().vision_config, info.image_processor.media_proc_cfg
    if (kind := getattr(vision, "mm_projector_type", "patchmerger")) != projector:
        raise ConfigError(f"mm_projector_type is {kind!r}; allowed: {projector!r}")
    if (fixed := config.get("fixed_output_tokens")) is not None:
        raise ConfigError(f"fixed_output_tokens is {fixed}; allowed: null, by which sizes count")
    return layout(info, *largest_size(info), {})


def largest_size(info: Any) -> tuple[int, int]:
    """Return height and width of an image with most tokens: vLLM's square has fewer."""
    return _largest_size(_rule(info))


@cache
def _largest_size(rule: _Rule) -> tuple[int, int]:
    return size_with_most(lambda *size: np.multiply(*rule.grid(*size)), rule.patch)


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> GridLayout:
    """Return the layout of an image as the processor pads it; see `Family.layout`."""
    rows, columns = _rule(info).grid(np.array(height), np.array(width))
    return GridLayout(int(rows), int(columns))


def _rule(info: Any) -> _Rule:
    config = info.image_processor.media_proc_cfg
    down, across = info.get_hf_config().vision_config.merge_kernel_size
    most, longest = config["in_patch_limit"], config["patch_limit_on_one_side"]
    return _Rule(config["patch_size"], down, across, most, longest)


def images(hf_config: Any, image_input: Any) -> list[EncoderImage]:
    """Return the images of a batch; see `Family.images`."""
    grids = image_input["grid_thws"].tolist()  # on the CPU already
    pixels = image_input["pixel_values"].split([prod(grid) for grid in grids])
    down, across = hf_config.vision_config.merge_kernel_size
    return [
        EncoderImage(patches, GridLayout(rows // down, columns // across))
        for patches, (_, rows, columns) in zip(pixels, grids, strict=True)
    ]


def seen(hf_config: Any, item: Mapping[str, Any]) -> torch.Tensor:
    """Return the picture that patches were cut from; see `Family.seen`."""
    _, rows, columns = item["grid_thws"].flatten().tolist()
    return raster(item["pixel_values"], rows, columns)
