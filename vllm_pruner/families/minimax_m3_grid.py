"""The grid of MiniMax-M3's images and of the frames of its videos: given in patches as Qwen-VL's,
but bounded by one of two rules, and its tower's configuration is a plain dictionary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from math import isqrt
from types import SimpleNamespace
from typing import Any, NamedTuple

from vllm.transformers_utils.processors.minimax_m3 import MAX_RATIO, smart_resize

from vllm_pruner.families.merging import MERGING
from vllm_pruner.families.qwen_grid import QWEN3_VIDEOS
from vllm_pruner.families.qwen_grid import images as qwen_images
from vllm_pruner.families.qwen_grid import seen as qwen_seen
from vllm_pruner.families.unsuited import check_shrinking
from vllm_pruner.family import Family, Videos
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.worker.minimax_tower import MiniMaxTower

__all__ = ["largest", "largest_size", "layout", "minimax_family"]


class _Rule(NamedTuple):
    """How the processor sizes images."""

    side: int
    """Of a token, in pixels."""

    most: int
    """Pixels of an image, if no longest side is set."""

    longest: int | None
    """The longest side of an image that is not enlarged."""

    shortest: int
    """To which the shorter side of a narrow image is enlarged, if a longest side is set."""

    total: int
    """Pixels above which an image is refused, if a longest side is set."""

    def grid(self, height: int, width: int) -> GridLayout:
        """Return the layout of an image of so many pixels.

        Raises:
            ValueError: the processor refuses the image.
        """
        rows, columns = smart_resize(
            height,
            width,
            factor=self.side,
            max_pixels=self.most,
            max_long_side_pixel=self.longest,
            min_short_side_pixel=self.shortest,
            max_total_pixels=self.total,
        )
        return GridLayout(rows // self.side, columns // self.side)

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Yield heights and widths of images among which is one of most tokens."""
        if self.longest is None:
            tokens = self.most // self.side**2
            for rows in range(1, isqrt(tokens) + 1):
                columns = min(tokens // rows, MAX_RATIO * rows)
                yield rows * self.side, columns * self.side
            return
        square = min(self.longest, isqrt(self.total))
        yield square, square
        for height in range(
            1, min(self.shortest, self.longest + 1)
        ):  # enlarged, whatever the width
            width = min(self.longest, MAX_RATIO * height)
            room = self.total // self.shortest - self.side  # once it is enlarged
            yield height, max(1, min(width, room * height // self.shortest))


def _rule(info: Any, mm_kwargs: Mapping[str, object]) -> _Rule:
    images = info.get_image_processor(**mm_kwargs)
    merged = info.ctx.get_merged_mm_kwargs(mm_kwargs)
    given = {**merged, **(merged.get("images_kwargs") or {})}
    most, longest = (
        given.get(name, getattr(images, name)) for name in ("max_pixels", "max_long_side_pixel")
    )
    side = images.patch_size * images.merge_size
    return _Rule(side, most, longest, images.min_short_side_pixel, images.max_total_pixels)


def largest_size(info: Any) -> tuple[int, int]:
    """Return height and width of an image with most tokens: vLLM's square may have fewer."""
    rule = _rule(info, {})
    return max(rule.sizes(), key=lambda size: (rule.grid(*size).tokens, min(size)))


def largest(info: Any) -> GridLayout:
    """Return the layout that vLLM profiles memory with; see `Family.largest`."""
    return layout(info, *largest_size(info), {})


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> GridLayout:
    """Return the layout of an image after the processor has resized it; see `Family.layout`."""
    return _rule(info, mm_kwargs).grid(height, width)


def _as_qwen(hf_config: Any) -> Any:
    """Return what is read of a configuration as of Qwen-VL's."""
    vision = hf_config.vision_config
    merged = vision["img_token_compression_config"]
    return SimpleNamespace(
        vision_config=SimpleNamespace(
            patch_size=vision["patch_size"],
            spatial_merge_size=merged.get("spatial_merge_size", 2),
            temporal_patch_size=merged.get("temporal_patch_size", 2),
        )
    )


def _of_qwen(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of a Qwen-VL's configuration as one of this model's."""
    return lambda hf_config, *args: function(_as_qwen(hf_config), *args)


_VIDEOS: Videos = replace(
    QWEN3_VIDEOS,
    item_layout=_of_qwen(QWEN3_VIDEOS.item_layout),
    items=_of_qwen(QWEN3_VIDEOS.items),
    frame_mark=None,
)
"""The time of each frame stands before its marks."""


def minimax_family(name: str) -> Family:
    """Return the family of a MiniMax-M3."""
    return Family(
        name,
        largest,
        layout,
        _of_qwen(qwen_images),
        MiniMaxTower,
        _of_qwen(qwen_seen),
        partial(check_shrinking, smaller="max_pixels"),
        stock_captured=True,
        videos=_VIDEOS,
        **MERGING,
    )
