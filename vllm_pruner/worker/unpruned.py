"""The unpruned prompt, for which positions are computed: with all placeholders of all items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from vllm.multimodal.inputs import MultiModalKwargsItem, PlaceholderRange

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.positions import Unpruned, unpruned
from vllm_pruner.layout.shares import frame_shares
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.keys import PLAN_SETTINGS

if TYPE_CHECKING:
    from vllm.multimodal.inputs import MultiModalFeatureSpec

    from vllm_pruner.family import Family
    from vllm_pruner.settings.config import PruneConfig

__all__ = ["GRIDS", "as_unpruned", "counted_grid"]

GRIDS = "image_grid_thw"
"""The field with an image's grid, in every model with M-RoPE."""

_VIDEO_GRIDS = "video_grid_thw"
"""The same for a video."""

_Run = tuple[int, int, int]
"""Offset, length and unpruned length of a run of placeholders."""


def as_unpruned(
    family: Family,
    hf_config: Any,
    tokens: list[int],
    features: Sequence[MultiModalFeatureSpec],
) -> tuple[Unpruned, list[MultiModalFeatureSpec]]:
    """Return a prompt as it would be without pruning, with its images and videos in order.

    Args:
        family: the model's family.
        hf_config: the configuration of the whole model.
        tokens: the pruned prompt.
        features: its images and videos, some of them pruned.
    """
    videos = family.videos
    name = videos and videos.frame_mark
    mark = getattr(hf_config, name) if name else None
    in_order = sorted(features, key=lambda feature: feature.mm_position.offset)
    counted = [_as_counted(family, hf_config, feature) for feature in in_order]
    runs = [_runs(feature.mm_position, layout, tokens, mark) for feature, layout in counted]
    filler = getattr(hf_config, videos.token) if videos else 0
    whole = unpruned(tokens, [run for of_item in runs for run in of_item], filler)
    moved = [
        replace(feature, mm_position=_moved(feature.mm_position, of_item, whole.index))
        for (feature, _), of_item in zip(counted, runs, strict=True)
    ]
    return whole, moved


def counted_grid(layout: GridLayout, config: PruneConfig) -> GridLayout:
    """Return the grid in which positions are counted: the unpruned image's, unless `positions` is
    `compact`."""
    if config.off or config.positions == "original":
        return layout
    return layout.compact(config.keep_count(layout.tokens))


def _as_counted(
    family: Family, hf_config: Any, feature: MultiModalFeatureSpec
) -> tuple[MultiModalFeatureSpec, GridLayout | None]:
    """Return an image or video with its grid replaced by the one in which positions are counted,
    and that grid; None in its place if the item has no plan."""
    if feature.data is None or PLAN_SETTINGS not in feature.data:
        return feature, None
    item: dict[str, Any] = {name: field.data for name, field in feature.data.items()}
    layout, grids = _layout_of(family, hf_config, item)
    counted = counted_grid(layout, ImagePlan.config_of(item))
    if counted == layout:
        return feature, layout
    thw = item[grids].clone()
    thw[..., 1] = thw[..., 1] // layout.rows * counted.rows
    thw[..., 2] = thw[..., 2] // layout.columns * counted.columns
    field = replace(feature.data[grids], data=thw)
    data = MultiModalKwargsItem({**feature.data, grids: field})
    return replace(feature, data=data), counted


def _layout_of(family: Family, hf_config: Any, item: dict[str, Any]) -> tuple[GridLayout, str]:
    """Return the layout of an image or video with a plan, and the name of its grid's field."""
    if GRIDS in item:
        assert family.item_layout is not None
        layout, grids = family.item_layout(hf_config, item), GRIDS
    else:
        assert family.videos is not None
        layout, grids = family.videos.item_layout(hf_config, item), _VIDEO_GRIDS
    assert isinstance(layout, GridLayout)
    return layout, grids


def _runs(
    place: PlaceholderRange, layout: GridLayout | None, tokens: list[int], mark: int | None
) -> list[_Run]:
    """Return the runs of an image or video.

    Args:
        place: its place in the prompt.
        layout: the grid in which positions are counted; None for an item without a plan.
        tokens: the prompt.
        mark: the token before each frame, if other tokens separate a video's frames.
    """
    if layout is None:
        return [(place.offset, place.length, place.length)]
    if not layout.apart:
        return [(place.offset, place.length, layout.tokens)]
    assert mark is not None
    runs, offset = [], place.offset
    for share in frame_shares(layout.frames, place.get_num_embeds()):
        offset = tokens.index(mark, offset) + 1
        runs.append((offset, share, layout.frame_tokens))
    return runs


def _moved(place: PlaceholderRange, runs: Sequence[_Run], index: torch.Tensor) -> PlaceholderRange:
    """Return an item's place in the unpruned prompt; an unpruned item keeps its mask. Frames that
    stand apart have a run each, behind a mark of their own."""
    offset = int(index[place.offset])
    more = sum(original - length for _, length, original in runs)
    if not more:
        return replace(place, offset=offset)
    length = place.length + more
    if len(runs) == 1 and runs[0][0] == place.offset:
        return PlaceholderRange(offset=offset, length=length)
    is_embed = torch.zeros(length, dtype=torch.bool)
    for start, _, original in runs:
        first = int(index[start - 1]) + 1 - offset
        is_embed[first : first + original] = True
    return PlaceholderRange(offset=offset, length=length, is_embed=is_embed)
