"""The grid of GLM-5-Next's images: as GLM-V's, but bounded in tokens, and padded to whole ones
instead of stretched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import isqrt
from typing import Any, NamedTuple

from transformers.models.glm5_next.image_processing_glm5_next import (
    Glm5NextImageProcessor,
    smart_resize,
)
from transformers.models.glm5_next.image_processing_pil_glm5_next import Glm5NextImageProcessorPil

from vllm_pruner.families.glm_grid import GLM_VIDEOS, edge, with_glm_marks
from vllm_pruner.families.qwen_grid import plain_family
from vllm_pruner.families.unsuited import check_shrinking
from vllm_pruner.family import Family
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.settings.errors import ConfigError

__all__ = ["glm5_family", "largest"]


class _Rule(NamedTuple):
    """How the processor sizes images."""

    frames: int
    """In which an image is repeated."""

    cell: int
    """The side in tokens of the squares that an image is padded to: `patch_expand_factor`."""

    fewest: int
    """Squares of an image."""

    most: int
    """Squares of an image."""


def _rule(info: Any, mm_kwargs: Mapping[str, object]) -> _Rule:
    """Return the rule for a request with these arguments.

    Raises:
        ConfigError: its sizes of images are unknown, or a bound is no number of tokens.
    """
    images = info.get_image_processor(**mm_kwargs)
    if not isinstance(images, Glm5NextImageProcessor | Glm5NextImageProcessorPil):
        raise ConfigError(
            f"image processor is {type(images).__name__} of {type(images).__module__}; allowed: "
            "Glm5NextImageProcessor of transformers, which vLLM 0.32 and newer take"
        )
    merged = info.ctx.get_merged_mm_kwargs(mm_kwargs)
    given = {**merged, **(merged.get("images_kwargs") or {})}
    names = ("patch_expand_factor", "min_image_tokens", "max_image_tokens")
    numbers = [given.get(name, getattr(images, name)) for name in names]
    for name, number in zip(names, numbers, strict=True):
        if not isinstance(number, int) or number < 1:
            raise ConfigError(f"{name} is {number!r}; allowed: a whole number from 1")
    return _Rule(images.temporal_patch_size, *numbers)


def largest(info: Any) -> GridLayout:
    """Return the layout with which vLLM profiles memory, as nearly square as one of most tokens can
    be; see `Family.largest`."""
    rule = _rule(info, {})
    rows = next(rows for rows in range(isqrt(rule.most), 0, -1) if rule.most % rows == 0)
    return GridLayout(rows * rule.cell, rule.most // rows * rule.cell)


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> GridLayout:
    """Return the layout of an image as the processor pads it; see `Family.layout`."""
    rule, side = _rule(info, mm_kwargs), edge(info.get_image_processor(**mm_kwargs))
    rows, columns = smart_resize(
        rule.frames, height, width, rule.frames, side * rule.cell, rule.fewest, rule.most
    )
    return GridLayout(rows // side, columns // side)


def glm5_family(name: str) -> Family:
    """Return the family of a GLM-5-Next, whose decoder knows no positions."""
    return with_glm_marks(
        replace(
            plain_family(name, GLM_VIDEOS),
            largest=largest,
            layout=layout,
            check_method=partial(check_shrinking, smaller="max_image_tokens"),
        )
    )
