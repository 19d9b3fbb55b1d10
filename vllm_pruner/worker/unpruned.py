"""The unpruned prompt, for which positions are computed: with all placeholders of all items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from vllm.multimodal.inputs import MultiModalKwargsItem, PlaceholderRange

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.joined_frames import Between
from vllm_pruner.layout.placed_rows import Placed
from vllm_pruner.layout.shares import frame_shares
from vllm_pruner.layout.unpruned_prompt import Run, Unpruned, unpruned
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.keys import PLAN_SETTINGS

if TYPE_CHECKING:
    from vllm.multimodal.inputs import MultiModalFeatureSpec

    from vllm_pruner.family import Family

__all__ = ["GRIDS", "as_unpruned", "counted_grid"]

GRIDS = "image_grid_thw"
"""The field with an image's grid, in every model with M-RoPE."""

_VIDEO_GRIDS = "video_grid_thw"
"""The same for a video."""


class _Item(NamedTuple):
    """An image or video of a prompt."""

    feature: MultiModalFeatureSpec
    """With the grid in which positions are counted."""

    grid: GridLayout | None = None
    """That grid; None if the item has no plan."""

    between: Between = ()
    """See `ImagePlan.between`."""

    in_tree: bool = False
    """Whether it is a video that vLLM has pruned."""


def as_unpruned(
    family: Family,
    hf_config: Any,
    tokens: list[int],
    features: Sequence[MultiModalFeatureSpec],
    in_tree: bool,
) -> tuple[Unpruned, list[MultiModalFeatureSpec]]:
    """Return a prompt as it would be without pruning, with its images and videos in order.

    Args:
        family: the model's family.
        hf_config: the configuration of the whole model.
        tokens: the pruned prompt.
        features: its images and videos, some of them pruned.
        in_tree: whether vLLM has pruned the videos without a plan.
    """
    videos = family.videos
    name = videos and videos.frame_mark
    mark = getattr(hf_config, name) if name else None
    in_order = sorted(features, key=lambda feature: feature.mm_position.offset)
    counted = [_as_counted(family, hf_config, feature, in_tree) for feature in in_order]
    runs = [_runs(item, tokens, mark) for item in counted]
    # Audio that is interleaved with a video has the video's place.
    apart = {run.offset: run for of_item in runs for run in of_item}
    whole = unpruned(tokens, [*apart.values()])
    moved = [
        replace(item.feature, mm_position=_moved(item, of_item, whole.index))
        for item, of_item in zip(counted, runs, strict=True)
    ]
    return whole, moved


def counted_grid(layout: Placed, plan: ImagePlan) -> Placed:
    """Return the grid in which positions are counted: the unpruned image's, unless `positions` is
    `compact`. The plan says how many tokens are kept; a method is not asked again."""
    if plan.config.off or plan.config.positions == "original":
        return layout
    return layout.compact(plan.kept_of(layout.tokens))


def _as_counted(
    family: Family, hf_config: Any, feature: MultiModalFeatureSpec, in_tree: bool
) -> _Item:
    """Return an image or video with its grid replaced by the one in which positions are counted."""
    if feature.data is None:
        return _Item(feature)
    item: dict[str, Any] = {name: field.data for name, field in feature.data.items()}
    if PLAN_SETTINGS not in item:
        if not in_tree or GRIDS in item:
            return _Item(feature)
        return _Item(feature, _layout_of(family, hf_config, item)[0], in_tree=True)
    layout, grids = _layout_of(family, hf_config, item)
    plan = ImagePlan.of_item(item)
    counted = counted_grid(layout, plan)
    if counted == layout:
        return _Item(feature, layout, plan.between)
    thw = item[grids].clone()
    thw[..., 1] = thw[..., 1] // layout.rows * counted.rows
    thw[..., 2] = thw[..., 2] // layout.columns * counted.columns
    field = replace(feature.data[grids], data=thw)
    data = MultiModalKwargsItem({**feature.data, grids: field})
    return _Item(replace(feature, data=data), counted, plan.between)


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


def _runs(item: _Item, tokens: list[int], mark: int | None) -> list[Run]:
    """Return the runs of an image or video.

    Args:
        item: the item.
        tokens: the prompt.
        mark: the token before each frame, if other tokens separate a video's frames.
    """
    place, grid = item.feature.mm_position, item.grid
    offset, length = place.offset, place.length
    if grid is None:
        return [Run(offset, length, tokens[offset : offset + length])]
    if not grid.apart:
        return [Run(offset, length, tokens[offset : offset + 1] * grid.tokens)]
    assert mark is not None
    first = tokens.index(mark, offset) + 1
    frame = tokens[first : first + 1] * grid.frame_tokens  # at least one token of it is kept
    if item.in_tree:
        return [_lumped(place, first, frame, tokens)]
    if item.between:
        joined = [*frame, *(token for text in item.between for token in [*text, *frame])]
        return [Run(first, place.get_num_embeds(), joined)]
    runs = []
    for share in frame_shares(grid.frames, place.get_num_embeds()):
        offset = tokens.index(mark, offset) + 1
        runs.append(Run(offset, share, frame))
    return runs


def _lumped(place: PlaceholderRange, first: int, frame: list[int], tokens: list[int]) -> Run:
    """Return the run of a video that vLLM has pruned, from the first token of its first frame to
    its end: vLLM writes all kept tokens there, and none into the other frames.

    Args:
        place: the video's place in the prompt.
        first: where its first frame begins.
        frame: the tokens of an unpruned frame.
        tokens: the prompt.
    """
    end = place.offset + place.length
    whole = [*frame]
    for token in tokens[first:end]:
        if token != frame[0]:
            whole += [token, *frame] if token == tokens[first - 1] else [token]
    return Run(first, end - first, whole)


def _moved(item: _Item, runs: Sequence[Run], index: torch.Tensor) -> PlaceholderRange:
    """Return an item's place in the unpruned prompt; an unpruned item keeps its mask. Of frames
    that stand apart, each consists of the token that the first one begins with."""
    place = item.feature.mm_position
    offset = int(index[place.offset])
    if item.grid is None:
        return replace(place, offset=offset)
    length = place.length + sum(len(run.whole) - run.length for run in runs)
    if not item.grid.apart:
        return PlaceholderRange(offset=offset, length=length)
    is_embed = torch.zeros(length, dtype=torch.bool)
    for run in runs:
        first = int(index[run.offset - 1]) + 1 - offset
        tokens = torch.tensor(run.whole)
        is_embed[first : first + len(tokens)] = tokens == tokens[0]
    return PlaceholderRange(offset=offset, length=length, is_embed=is_embed)
