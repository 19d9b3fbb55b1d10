"""Tiles of which some are padding: what shows the picture is kept first, tile by tile."""

from __future__ import annotations

import pytest
import torch

from vllm_pruner.layout.crop_budget import choose
from vllm_pruner.layout.padded_tiles import PaddedTiles
from vllm_pruner.methods.base import VisualTokens
from vllm_pruner.settings.config import PruneConfig

SIDE = 4
SHOWN = ((4, 4), (4, 1), (2, 4), (2, 1), (4, 4))
"""Two rows of two tiles, padded on the right and below, and the whole picture."""

GRID = PaddedTiles(SIDE, 5, fixed_shares=True, shown=SHOWN)
ONE = PaddedTiles(SIDE, 1, fixed_shares=True, shown=((4, 2),))
FULL = PaddedTiles(SIDE, 2, fixed_shares=True, shown=((4, 4), (4, 4)))
LAYOUTS = pytest.mark.parametrize("layout", [GRID, ONE, FULL], ids=["grid", "one", "full"])


def _shows(layout: PaddedTiles) -> list[bool]:
    """Whether each position shows some of the picture."""
    return [
        row < rows and column < columns
        for rows, columns in layout.shown
        for row in range(SIDE)
        for column in range(SIDE)
    ]


def _kept(layout: PaddedTiles, keep: int, method: str = "attention") -> list[list[int]]:
    """What is kept of two images whose padding is what ranks highest."""
    draw = torch.Generator().manual_seed(keep)
    features = torch.randn(2, layout.tokens, 8, generator=draw)
    importance = torch.rand(2, layout.tokens, generator=draw)
    importance[:, ~torch.tensor(_shows(layout))] += 1.0
    tokens = VisualTokens(features, importance)
    found = choose(tokens, PruneConfig(method=method, tokens=keep), layout)
    kept: list[list[int]] = found.index.tolist()
    return kept


@LAYOUTS
@pytest.mark.parametrize("method", ["attention", "scope"])
def test_a_budget_goes_to_the_picture_before_any_padding(layout: PaddedTiles, method: str) -> None:
    shows = _shows(layout)
    assert layout.showing == sum(shows)
    for keep in range(1, layout.tokens + 1, 1 if method == "attention" else 7):
        for kept in _kept(layout, keep, method):
            assert kept == sorted(set(kept)) and len(kept) == keep
            assert sum(shows[place] for place in kept) == min(keep, layout.showing)


@LAYOUTS
def test_each_tile_keeps_the_share_that_the_prompt_has_placeholders_for(
    layout: PaddedTiles,
) -> None:
    for keep in range(1, layout.tokens + 1):
        shares = layout.shares(keep)
        assert sum(shares) == keep and max(shares) <= layout.base
        for kept in _kept(layout, keep):
            of_tiles = torch.tensor(kept).div(layout.base, rounding_mode="floor")
            assert of_tiles.bincount(minlength=layout.crops).tolist() == shares


def test_shares_are_in_proportion_to_what_tiles_show() -> None:
    assert GRID.shares(23) == [8, 2, 4, 1, 8]
    assert GRID.shares(46) == [16, 4, 8, 2, 16]
    assert GRID.shares(46 + 17) == [16, 10, 12, 9, 16], "padding by how much there is"
    assert FULL.shares(9) == [4, 5]


def test_padding_that_is_kept_is_the_first_of_its_tile() -> None:
    assert _kept(ONE, 11) == [[0, 1, 2, 3, 4, 5, 6, 8, 9, 12, 13]] * 2


def test_the_most_important_of_a_tile_s_picture_are_kept() -> None:
    draw = torch.Generator().manual_seed(23)
    torch.randn(2, GRID.tokens, 8, generator=draw)
    importance = torch.rand(2, GRID.tokens, generator=draw)
    kept = _kept(GRID, 23)
    for row, scores in zip(kept, importance, strict=True):
        last = [place for place in row if place >= 64]
        assert last == (64 + scores[64:].topk(8).indices.sort().values).tolist()
