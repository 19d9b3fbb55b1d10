"""Spend one budget on an image of several crops.

`joint`: the method sees the patches of all crops as one list. `per_crop`: it sees each crop on its
own, with a share of the budget in proportion to the crop's patches, not counting padding. If no
crop has padding, these are the equal shares of the published LLaVA-NeXT experiments. A layout with
`fixed_shares` is always treated `per_crop`, as is one whose padding is among the decoder's tokens
(`padded_tiles`); for a video see `part_budget`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch

from vllm_pruner.layout.clip_layout import ClipLayout
from vllm_pruner.layout.crop_layout import CropLayout
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.newlines import method_budget, with_newlines
from vllm_pruner.layout.newlines_of_many import with_newlines_of_many
from vllm_pruner.layout.padded_tiles import PaddedTiles, with_padding
from vllm_pruner.layout.part_budget import Run, choose_of_parts, choose_of_video
from vllm_pruner.layout.shares import shares
from vllm_pruner.methods.base import Kept, Method, Need, VisualTokens

if TYPE_CHECKING:
    from vllm_pruner.layout.layout import Crops, Layout
    from vllm_pruner.settings.config import PruneConfig

__all__ = ["choose", "is_one_list", "method_share", "with_own", "with_own_of_many"]


def choose(
    tokens: VisualTokens,
    config: PruneConfig,
    layout: Layout,
    keep: int | None = None,
    run: Run = Method.choose,
) -> Kept:
    """Return the kept positions of each image; of images of one crop also the merged rows.

    Args:
        tokens: all patches, in the order of the layout.
        config: the settings; newlines count towards their budget.
        layout: the layout that all images share.
        keep: how many positions to keep; None computes it from the settings.
        run: see `Run`.
    """
    method, options = config.resolved
    keep = config.keep_count(layout.tokens) if keep is None else keep
    if is_one_list(config, layout):
        chosen = run(method, tokens, method_share(layout, keep), options)
        return with_own(chosen, tokens, method, layout, keep)
    if isinstance(layout, GridLayout):
        return choose_of_video(tokens, method, options, layout.frames, keep, run)
    if isinstance(layout, ClipLayout):
        of_frames = choose_of_video(
            tokens, method, options, layout.frames, layout.budget(keep), run
        )
        return Kept(layout.with_newline(_indices(of_frames), keep))
    crops = cast("Crops", layout).patches_of_crops(tokens.features.device)
    each = shares([len(crop) for crop in crops], method_share(layout, keep))
    # A crop's grid may be none of the image's.
    chosen = choose_of_parts(replace(tokens, grid=None), method, options, crops, each, run)
    return with_own(chosen, tokens, method, layout, keep)


def is_one_list(config: PruneConfig, layout: Layout) -> bool:
    """Return whether a method sees all patches of an image as one list."""
    if isinstance(layout, ClipLayout) or (isinstance(layout, GridLayout) and layout.frames):
        return False
    if isinstance(layout, PaddedTiles) and layout.showing < layout.tokens:
        return False
    if layout.crops == 1 or config.resolved[0].before_tower:  # what is empty is so in any crop
        return True
    return config.crop_budget == "joint" and not cast("Crops", layout).fixed_shares


def method_share(layout: Layout, keep: int) -> int:
    """Return how many of the `keep` tokens of an image the method chooses; the rest goes to the
    model's own, or to padding."""
    if isinstance(layout, PaddedTiles):
        return min(keep, layout.showing)
    return method_budget(keep, layout) if isinstance(layout, CropLayout) else keep


def with_own(kept: Kept, tokens: VisualTokens, method: Method, layout: Layout, keep: int) -> Kept:
    """Return the kept positions of images, given what the method chose of their patches.

    Args:
        kept: as many as `method_share` says.
        tokens: all patches.
        method: the method; what it looks at decides which patches take the places that are left.
        layout: the layout that all images share.
        keep: how many positions to keep.
    """
    if isinstance(layout, PaddedTiles) and keep > layout.showing:
        static = with_padding(layout, keep, tokens.features.device)
        return Kept(static.expand(len(tokens.features), -1))
    if not isinstance(layout, CropLayout) or layout.crops == 1:
        return kept
    chosen = _indices(kept)
    return Kept(with_newlines(chosen, _importance(tokens, method), keep, layout))


def with_own_of_many(
    chosen: torch.Tensor,
    tokens: VisualTokens,
    method: Method,
    layouts: Sequence[Layout],
    keeps: Sequence[int],
) -> torch.Tensor | None:
    """Return what `with_own` does, `[images, most]`, for images with a layout and a budget each; -1
    where one keeps fewer. None if some of them are not a base crop and a raster.

    Args:
        chosen: `[images, P]`, -1 beyond an image's `method_share`.
        tokens: all patches, padded.
        method: the method.
        layouts: of each image.
        keeps: of each image.
    """
    crops = [each for each in layouts if isinstance(each, CropLayout) and each.height * each.width]
    if len(crops) < len(layouts):
        return None
    return with_newlines_of_many(chosen, _importance(tokens, method), keeps, crops)


def _importance(tokens: VisualTokens, method: Method) -> torch.Tensor:
    """Return `[images, patches]`, what ranks patches for the places that the method leaves."""
    importance = tokens.importance if Need.IMPORTANCE in method.needs else None
    return _scattered(tokens.features) if importance is None else importance


def _indices(kept: Kept) -> torch.Tensor:
    """Return a method's indices; `check_method` has refused methods that merge tokens."""
    assert kept.rows is None
    return kept.index


def _scattered(features: torch.Tensor) -> torch.Tensor:
    """Return `[images, patches]` float64, one arbitrary ranking for all images, so that a baseline
    without content stays without content."""
    index = torch.arange(features.shape[1], device=features.device)
    return (index * 2654435761 % 2**32).double().expand(len(features), -1)
