"""Rows of images and videos that carry their places along, as `positions` reads them.

A place's digits follow from the layout, those of a run from its length: both are made once, on the
host, and looked up on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import torch

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.layout import TABLES
from vllm_pruner.layout.positions import BASE, Kind
from vllm_pruner.layout.sliced_grid import SlicedGrid
from vllm_pruner.methods.on_device import sent

__all__ = ["Placed", "as_placed", "placed_in", "with_lumped_places", "with_places"]

Placed = TypeVar("Placed", GridLayout, SlicedGrid)
"""A layout whose tokens have places."""


def with_places(
    rows: torch.Tensor, places: torch.Tensor, is_image: bool = True, runs: Sequence[int] = ()
) -> torch.Tensor:
    """Return kept rows with their places appended, `[images, keep, D + 11]`.

    Args:
        rows: `[images, keep, D]`, in any float dtype.
        places: `[images, keep, 3]` int64, time, row and column within the image, each < 65,536.
        is_image: False for a video.
        runs: how many rows each run of the prompt has; by default, all rows are one run.
    """
    return _with_digits(rows, _digits(places).to(rows.dtype), _kept(is_image), runs)


def placed_in(
    layout: Placed,
    within: Placed,
    rows: torch.Tensor,
    index: torch.Tensor,
    runs: Sequence[int],
) -> torch.Tensor:
    """Return kept rows with their places appended, `[images, keep, D + 11]`.

    Args:
        layout: of the images or videos.
        within: the grid in which positions are counted; see `GridLayout.places_at`.
        rows: `[images, keep, D]`, in any float dtype.
        index: `[images, keep]` int64, the kept tokens.
        runs: see `with_places`.
    """
    digits = _at_every_token(layout, within, rows.dtype, rows.device)[index]
    return _with_digits(rows, digits, _kept(not layout.frames), runs)


def with_lumped_places(
    rows: torch.Tensor, places: torch.Tensor, is_mark: torch.Tensor, is_kept: torch.Tensor
) -> torch.Tensor:
    """Return the rows of a video with text among them, with their places appended, `[N, D + 11]`.

    Its prompt has all kept tokens in the first frame, as one run, and the text of the other frames
    behind it. Rows before that run are text, which keeps its positions; those behind it are
    numbered on.

    Args:
        rows: `[N, D]`, in any float dtype.
        places: `[N, 3]` int64, time, row and column, counted from the first row.
        is_mark: `[N]` int64, 1 for the token before each frame, else 0.
        is_kept: `[N]` int64, 1 for rows of the video, 0 for text.
    """
    mark = is_mark.argmax(dim=0, keepdim=True)  # a number as an index would make the host wait
    index = torch.arange(len(rows), device=rows.device) - mark - 1
    stays = index < 0
    index = index.masked_fill(stays, 1)  # not 0, with which a run begins
    of_run = torch.stack([index, is_kept.sum().expand(len(rows))], dim=1)
    where = torch.cat([(places - places[mark] - 1).clamp(min=0), of_run], dim=1)
    kind = torch.where(stays, Kind.OTHER_STAYS, Kind.VIDEO).unsqueeze(1)
    return torch.cat([rows, _digits(where).to(rows.dtype), kind.to(rows.dtype)], dim=-1)


def as_placed(rows: torch.Tensor, is_image: bool) -> torch.Tensor:
    """Return `[N, D + 11]`, the rows `[N, D]` of an unpruned image or video, so marked."""
    nowhere = rows.new_zeros(1, len(rows), 6)
    kind = Kind.IMAGE_STAYS if is_image else Kind.OTHER_STAYS
    return _with_digits(rows.unsqueeze(0), nowhere, kind)[0]


def _kept(is_image: bool) -> Kind:
    return Kind.IMAGE if is_image else Kind.VIDEO


@lru_cache(maxsize=TABLES)
def _at_every_token(
    layout: Placed, within: Placed, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Return `[tokens, 6]`, the digits of the place of every token."""
    places = layout.places_at(torch.arange(layout.tokens, device="cpu"), within)
    return sent(_digits(places).to(dtype), device)


def _with_digits(
    rows: torch.Tensor, digits: torch.Tensor, kind: Kind, runs: Sequence[int] = ()
) -> torch.Tensor:
    """Return rows `[images, keep, D]` with the digits of their places `[images, keep, 6]`, those of
    their runs, and their kind appended."""
    lengths = tuple(length for length in runs or [rows.shape[1]] if length)
    tail = _of_runs(lengths, kind, rows.dtype, rows.device)
    return torch.cat([rows, digits, tail.expand(len(rows), -1, -1)], dim=2)


@lru_cache(maxsize=TABLES)
def _of_runs(
    lengths: tuple[int, ...], kind: Kind, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Return `[rows, 5]`: the digits of each row's index in its run, and of the run's length, and
    the kind."""
    index = torch.cat([torch.arange(length, device="cpu") for length in lengths])
    each = torch.cat([torch.full((length,), length, device="cpu") for length in lengths])
    digits = _digits(torch.stack([index, each], dim=1))
    kinds = torch.full((len(digits), 1), kind, device="cpu")
    return sent(torch.cat([digits, kinds], dim=1).to(dtype), device)


def _digits(numbers: torch.Tensor) -> torch.Tensor:
    """Return `[..., 2 * n]` of `[..., n]`, the two digits of each number."""
    return torch.stack([numbers // BASE, numbers % BASE], dim=-1).flatten(-2)
