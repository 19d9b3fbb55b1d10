"""Arrange the patches of an image's crops, or a video's frames, as one sequence, in the decoder's
order, without padding.

The tower attends within a crop, so importance ranks the tokens within their crop only: its sum is
about the same for an empty corner as for the middle of the picture. To rank the tokens of all crops
in one list, each score is divided by the mean over its crop's patches, so that every crop's mean
is 1. Padding is not ranked and enters no mean.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, cast

import torch
from torch.nn.functional import interpolate
from vtprune_kernels import gather_rows

from vllm_pruner.layout.clip_layout import ClipLayout
from vllm_pruner.layout.crop_layout import CropLayout
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.grids_apart import GridsApart
from vllm_pruner.layout.layout import TABLES, Crops, Layout
from vllm_pruner.methods.base import Need
from vllm_pruner.methods.on_device import sent

__all__ = ["arrange", "is_mixed"]


def is_mixed(layout: Layout) -> bool:
    """Return whether tokens are interpolated from patches, which happens after projection."""
    resampled = isinstance(layout, CropLayout) and layout.resampled is not None
    return resampled or isinstance(layout, ClipLayout)


def arrange(values: dict[str, torch.Tensor], layout: Layout) -> dict[str, torch.Tensor]:
    """Return features, scores and keys of the patches of images that share a layout.

    Args:
        values: each `[images, encoded, ...]`, crop by crop; a score is `[images, encoded]`.
        layout: the shared layout.

    Returns:
        Each `[images, patches, ...]`; features and keys themselves if their rows are in order.
    """
    if isinstance(layout, GridLayout) and layout.joined > 1:
        return {name: _joined(value, name, layout) for name, value in values.items()}
    if isinstance(layout, ClipLayout):
        return {name: _pooled(value, layout) for name, value in values.items()}
    if layout.crops == 1 or isinstance(layout, GridsApart):  # whose crops are in no one list
        return values
    crops = cast("Crops", layout)
    tables = _tables(crops, next(iter(values.values())).device)
    rows = [
        value if value.dim() == 3 else _on_one_scale(value, tables) for value in values.values()
    ]
    if tables.sources is not None:
        rows = gather_rows(rows, tables.sources.expand(len(rows[0]), -1))
    if isinstance(layout, CropLayout) and layout.resampled is not None:
        rows = [_resampled(value, layout.raster, layout.resampled) for value in rows]
    return dict(zip(values, rows, strict=True))


def _joined(value: torch.Tensor, name: str, layout: GridLayout) -> torch.Tensor:
    """Return `[videos, tokens, ...]` of `[videos, encoded, ...]`: the features of a token's frames
    one behind the other, the sum of their scores, the mean of their keys, as of its patches."""
    frames = value.unflatten(1, (layout.frames, layout.joined, layout.frame_tokens))
    if value.dim() == 2:
        summed: torch.Tensor = frames.sum(dim=2)
        return summed.flatten(1)
    joined = frames.mean(dim=2) if name == Need.KEYS else frames.transpose(2, 3).flatten(3)
    tokens: torch.Tensor = joined.flatten(1, 2)
    return tokens


def _pooled(value: torch.Tensor, layout: ClipLayout) -> torch.Tensor:
    """Return `[videos, patches, ...]` of `[videos, encoded, ...]`, with every frame interpolated as
    the model interpolates features. Scores need no common scale: frames are ranked separately."""
    frames = value.unflatten(1, (layout.frames, -1)).flatten(0, 1)
    rows = _resampled(frames, (layout.side, layout.side), (layout.pooled, layout.pooled))
    of_videos: torch.Tensor = rows.unflatten(0, (len(value), layout.frames))
    return of_videos.flatten(1, 2)


def _resampled(value: torch.Tensor, raster: tuple[int, int], size: tuple[int, int]) -> torch.Tensor:
    """Interpolate the raster of `[images, base + patches, ...]` as the model does its features;
    return `[images, base + tokens, ...]`."""
    base = value.shape[1] - raster[0] * raster[1]
    rows = value.unsqueeze(2) if value.dim() == 2 else value
    grid = rows[:, base:].unflatten(1, raster).permute(0, 3, 1, 2).contiguous()
    small = interpolate(grid, size, mode="bilinear").flatten(2).transpose(1, 2)
    return torch.cat([value[:, :base], small.squeeze(2) if value.dim() == 2 else small], dim=1)


class _Tables(NamedTuple):
    """What follows from a layout alone."""

    sources: torch.Tensor | None
    """`[patches]` int64, see `Crops.sources`; None if all rows are patches and in order."""

    is_patch: torch.Tensor
    """`[crops, N]` bool, false for padding."""

    patches: torch.Tensor
    """`[crops, 1]` int64, the patches of each crop; 1 for a crop that is all padding."""


@lru_cache(maxsize=TABLES)
def _tables(layout: Crops, device: torch.device) -> _Tables:
    sources = layout.sources(torch.device("cpu"))
    in_order = torch.equal(sources, torch.arange(layout.encoded, device="cpu"))
    is_patch = torch.zeros(layout.encoded, dtype=torch.bool, device="cpu")
    is_patch = is_patch.index_fill_(0, sources, True).view(layout.crops, layout.base)
    patches = is_patch.sum(dim=1, keepdim=True).clamp_min(1)
    rest = (sent(each, device) for each in (is_patch, patches))
    return _Tables(None if in_order else sent(sources, device), *rest)


def _on_one_scale(score: torch.Tensor, tables: _Tables) -> torch.Tensor:
    """Return `[images, crops * N]`: each score divided by the mean over its crop's patches."""
    score = score.unflatten(1, tables.is_patch.shape)
    mean = score.where(tables.is_patch, 0.0).sum(dim=2, keepdim=True) / tables.patches
    return (score / mean.clamp_min(torch.finfo(score.dtype).tiny)).flatten(1)
