"""The grid of GLM-V's images: as Qwen-VL's, but with another rule for its size.

The processor bounds the pixels of two frames, since it treats an image as a video of two equal
frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import isqrt
from typing import Any

from transformers.models.glm4v.image_processing_glm4v import Glm4vImageProcessor, smart_resize
from transformers.models.glm46v.image_processing_glm46v import Glm46VImageProcessor

from vllm_pruner.families.qwen_grid import QWEN3_VIDEOS, qwen_family
from vllm_pruner.families.unsuited import check_shrinking
from vllm_pruner.family import Family
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.settings.errors import ConfigError

__all__ = ["GLM_VIDEOS", "edge", "glm_family", "largest", "longest_of", "with_glm_marks"]

_BOUNDS = ("shortest_edge", "longest_edge")
"""Fewest and most pixels, despite the names."""

_LONGEST = 200
"""Largest ratio of sides that the processor accepts."""


def largest(info: Any) -> GridLayout:
    """Return the layout with which vLLM profiles memory; see `Family.largest`.

    vLLM assumes a square, which may have fewer tokens than an oblong.
    """
    images = info.get_image_processor()
    if not isinstance(images, Glm4vImageProcessor | Glm46VImageProcessor):
        raise ConfigError(
            f"image processor is {type(images).__name__}; allowed: Glm4vImageProcessor, "
            "Glm46VImageProcessor, whose sizes of images are known"
        )
    _, most = _pixels(info, images, {})
    return longest_of(most // (images.temporal_patch_size * edge(images) ** 2))


def longest_of(tokens: int) -> GridLayout:
    """Return the layout of most tokens, of at most so many, as nearly square as it can be, and not
    longer than processors of Qwen-VL's kind accept."""
    shapes = [GridLayout(rows, tokens // rows) for rows in range(1, isqrt(tokens) + 1)]
    return max(
        (shape for shape in shapes if shape.columns <= _LONGEST * shape.rows),
        key=lambda shape: (shape.tokens, shape.rows),
    )


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> GridLayout:
    """Return the layout of an image after the processor has resized it; see `Family.layout`."""
    images = info.get_image_processor(**mm_kwargs)
    frames, side = images.temporal_patch_size, edge(images)
    rows, columns = smart_resize(
        frames, height, width, frames, side, *_pixels(info, images, mm_kwargs)
    )
    return GridLayout(rows // side, columns // side)


def _pixels(info: Any, images: Any, mm_kwargs: Mapping[str, object]) -> tuple[int, int]:
    """Return the fewest and the most pixels of a processed image, over all frames."""
    merged = info.ctx.get_merged_mm_kwargs(mm_kwargs)
    size = (merged.get("images_kwargs") or {}).get("size") or merged.get("size")
    if size is None:
        return int(images.size.shortest_edge), int(images.size.longest_edge)
    bounds: list[Any] = [size.get(name) for name in _BOUNDS] if isinstance(size, Mapping) else []
    if not bounds or not all(isinstance(each, int) and each > 0 for each in bounds):
        raise ConfigError(f"size is {size}; allowed: {' and '.join(_BOUNDS)}, whole pixels")
    return bounds[0], bounds[1]


def edge(images: Any) -> int:
    """Return the side of a token in pixels."""
    return int(images.patch_size * images.merge_size)


GLM_VIDEOS = replace(QWEN3_VIDEOS, frame_mark="image_start_token_id")
"""The time of each frame stands behind its tokens."""

_VIDEO_MARKS = ("video_start_token_id", "video_end_token_id")


def with_glm_marks(family: Family) -> Family:
    """Return a family with the marks around images, and around videos of image tokens."""
    marks = ("image_start_token_id", "image_end_token_id", *_VIDEO_MARKS)
    return replace(family, marks=marks, video_marks=_VIDEO_MARKS)


def glm_family(name: str) -> Family:
    """Return the family of a GLM-V model."""
    return with_glm_marks(
        replace(
            qwen_family(name, GLM_VIDEOS),
            largest=largest,
            layout=layout,
            check_method=partial(check_shrinking, smaller="size"),
        )
    )
