"""Square tiles and the whole picture behind them."""

from __future__ import annotations

import torch

from vllm_pruner.layout.crop_budget import choose
from vllm_pruner.layout.shares import shares
from vllm_pruner.layout.tiled_grid import TiledGrid
from vllm_pruner.methods.base import VisualTokens
from vllm_pruner.settings.config import PruneConfig

TILED = TiledGrid((2, 5), side=3, tiles=4)
WHOLE = TiledGrid((4, 3))
SIZES = [*[9] * 4, 10]


def test_its_crops_are_all_of_its_tokens_in_order() -> None:
    assert (TILED.tokens, TILED.crops, TILED.whole_grid) == (46, 5, None)
    crops = TILED.patches_of_crops(torch.device("cpu"))
    assert [len(crop) for crop in crops] == SIZES
    assert torch.cat(crops).tolist() == [*range(46)]


def test_the_whole_picture_is_shown_first_and_its_tokens_are_last() -> None:
    views = TILED.views()
    assert [view.end - view.start for view in views] == SIZES
    assert [view.crop for view in views] == [1, 2, 3, 4, 0]
    assert [view.tokens for view in views] == [*[(3, 3)] * 4, None]
    assert {(view.rows, view.columns) for view in views} == {((0, 2), (0, 5))}


def test_a_picture_without_tiles_is_one_grid() -> None:
    assert (WHOLE.tokens, WHOLE.crops, WHOLE.whole_grid) == (12, 1, (4, 3))
    (view,) = WHOLE.views()
    assert (view.start, view.end, view.crop, view.tokens) == (0, 12, 0, None)


def test_each_keeps_its_share_of_the_most_important_tokens() -> None:
    """Those of the whole picture are by far the most important."""
    importance = torch.rand(1, 46, generator=torch.Generator().manual_seed(0))
    importance[:, 36:] += 9
    tokens = VisualTokens(torch.randn(1, 46, 4), importance)
    (kept,) = choose(tokens, PruneConfig(method="attention", tokens=20), TILED).index
    expected: list[int] = []
    crops = TILED.patches_of_crops(torch.device("cpu"))
    for crop, share in zip(crops, shares(SIZES, 20), strict=True):
        expected += sorted(crop[importance[0, crop].topk(share).indices].tolist())
    assert kept.tolist() == expected
