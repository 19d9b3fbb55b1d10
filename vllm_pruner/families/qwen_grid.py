"""What the Qwen-VL models have in common: one grid of merged tokens for each image and each frame
of a video, given in patches by `image_grid_thw` and `video_grid_thw`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from vllm_pruner.families.merging import MERGING
from vllm_pruner.families.unsuited import check_shrinking
from vllm_pruner.family import Family, Videos
from vllm_pruner.layout.cuts import cut_frames
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.tower import EncoderImage
from vllm_pruner.worker.captured_packed_tower import CapturedPackedTower

__all__ = [
    "QWEN3_VIDEOS",
    "QWEN_VIDEOS",
    "Pace",
    "plain_family",
    "qwen_family",
    "video_layout",
    "videos",
]

Pace = Callable[[Any, float | None], float]
"""`pace(hf_config, seconds)`: the temporal positions of a frame, given the seconds that it lasts or
None; see `GridLayout.pace`."""


def largest(info: Any) -> GridLayout:
    """Return the layout with which vLLM profiles memory; see `Family.largest`."""
    size = info.get_image_size_with_most_features()
    return layout(info, size.height, size.width, {})


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> GridLayout:
    """Return the layout of an image after the processor has resized it; see `Family.layout`."""
    size, _ = info._get_vision_info(
        image_width=width,
        image_height=height,
        image_processor=info.get_image_processor(**mm_kwargs),
        mm_kwargs=mm_kwargs,
        modality="image",
    )
    vision = info.get_hf_config().vision_config
    edge = vision.patch_size * vision.spatial_merge_size
    return GridLayout(size.height // edge, size.width // edge)


def item_layout(hf_config: Any, item: Mapping[str, Any]) -> GridLayout:
    """Return the layout of a processed image; see `Family.item_layout`."""
    return _merged(hf_config, item["image_grid_thw"].flatten().tolist())


def _merged(hf_config: Any, grid_thw: list[int]) -> GridLayout:
    merge = hf_config.vision_config.spatial_merge_size
    _, rows, columns = grid_thw
    return GridLayout(rows // merge, columns // merge)


def images(hf_config: Any, image_input: Any) -> list[EncoderImage]:
    """Return the images of a batch; see `Family.images`."""
    grids = image_input["image_grid_thw"].tolist()  # on the CPU already
    pixels = image_input["pixel_values"].split([rows * columns for _, rows, columns in grids])
    return [
        EncoderImage(patches, _merged(hf_config, grid))
        for patches, grid in zip(pixels, grids, strict=True)
    ]


def seen(hf_config: Any, item: Mapping[str, Any]) -> torch.Tensor:
    """Reassemble the picture from its patches; see `Family.seen`.

    A patch is `[3, frames, P, P]`, with equal frames for an image; the patches of a token are
    consecutive.
    """
    vision = hf_config.vision_config
    size, merge = vision.patch_size, vision.spatial_merge_size
    grid = item_layout(hf_config, item)
    patches = item["pixel_values"].view(
        grid.rows, grid.columns, merge, merge, 3, vision.temporal_patch_size, size, size
    )
    # rows, merge, P and columns, merge, P become height and width
    picture: torch.Tensor = patches.select(5, 0).permute(4, 0, 2, 5, 1, 3, 6)
    height, width = grid.rows * merge * size, grid.columns * merge * size
    return picture.reshape(1, 3, height, width)


def per_second(hf_config: Any, seconds: float | None) -> float:
    """Return the temporal positions of a frame where the tower says how many a second has."""
    each = 1.0 if seconds is None else seconds
    return each * float(getattr(hf_config.vision_config, "tokens_per_second", 1.0))


def video_layout(
    hf_config: Any, item: Mapping[str, Any], apart: bool = False, pace: Pace = per_second
) -> GridLayout:
    """Return the layout of a processed video; see `Videos.item_layout`, and `GridLayout.apart`."""
    seconds = item.get("second_per_grid_ts")
    grid = item["video_grid_thw"].flatten().tolist()
    each = pace(hf_config, None if seconds is None else float(seconds))
    return _of_frames(hf_config, grid, each, apart)


def videos(
    hf_config: Any, video_input: Any, apart: bool = False, pace: Pace = per_second
) -> list[EncoderImage]:
    """Return the videos of a batch; see `Videos.items`."""
    grids = video_input["video_grid_thw"].tolist()  # on the CPU already
    pixels = video_input["pixel_values_videos"].split([math.prod(grid) for grid in grids])
    seconds = video_input.get("second_per_grid_ts")
    each_seconds = [None] * len(grids) if seconds is None else [*map(float, seconds)]
    return [
        EncoderImage(patches, _of_frames(hf_config, grid, pace(hf_config, each), apart))
        for patches, grid, each in zip(pixels, grids, each_seconds, strict=True)
    ]


def _of_frames(hf_config: Any, grid_thw: list[int], pace: float, apart: bool) -> GridLayout:
    """Return the layout of a video."""
    pace = 1.0 if apart else pace
    return replace(_merged(hf_config, grid_thw), frames=grid_thw[0], pace=pace, apart=apart)


QWEN_VIDEOS = Videos(video_layout, videos)
"""For models whose videos are one run of tokens."""

QWEN3_VIDEOS = Videos(
    partial(video_layout, apart=True),
    partial(videos, apart=True),
    cut_frames,
    frame_mark="vision_start_token_id",
)
"""For models whose prompt has the time of each frame before its tokens."""


def qwen_family(name: str, videos: Videos) -> Family:
    """Return the family of a Qwen-VL model."""
    return Family(
        name,
        largest,
        layout,
        images,
        CapturedPackedTower,
        seen,
        check_shrinking,
        captured=True,
        captured_unasked=False,
        encodes_some=True,
        stock_captured=True,
        item_layout=item_layout,
        marks=("vision_start_token_id", "vision_end_token_id"),
        videos=videos,
        **MERGING,
    )


def plain_family(name: str, videos: Videos, **fields: Any) -> Family:
    """Return the family of a model with Qwen-VL's tower and processor whose decoder has plain
    positions.

    Args:
        name: the family's name.
        videos: see `Family`.
        fields: others of `Family` that differ from Qwen-VL's.
    """
    family = qwen_family(name, replace(videos, frame_mark=None))
    return replace(family, item_layout=None, **fields)
