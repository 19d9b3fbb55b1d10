"""The whole picture and its slices, of sizes of their own."""

from __future__ import annotations

import torch

from vllm_pruner.layout.crop_budget import choose
from vllm_pruner.layout.shares import shares
from vllm_pruner.layout.sliced_grid import SlicedGrid
from vllm_pruner.methods.base import VisualTokens
from vllm_pruner.settings.config import PruneConfig

SLICED = SlicedGrid((3, 5), (2, 4), (2, 3))
WHOLE = SlicedGrid((4, 4))


def test_its_crops_are_all_of_its_tokens_in_order() -> None:
    sizes = [15, *[8] * 6]
    assert (SLICED.tokens, SLICED.crops, SLICED.whole_grid) == (63, 7, None)
    crops = SLICED.patches_of_crops(torch.device("cpu"))
    assert [len(crop) for crop in crops] == [grid.tokens for grid in SLICED.grids] == sizes
    assert torch.cat(crops).tolist() == [*range(63)]
    views = SLICED.views()
    assert [view.end - view.start for view in views] == sizes
    assert [view.tokens for view in views] == [None, *[(2, 4)] * 6]


def test_a_picture_without_slices_is_one_grid() -> None:
    assert (WHOLE.tokens, WHOLE.crops, WHOLE.whole_grid) == (16, 1, (4, 4))
    (view,) = WHOLE.views()
    assert (view.start, view.end, view.crop) == (0, 16, 0)


def test_each_keeps_its_share_of_the_most_important_tokens() -> None:
    """Those of the last slice are by far the most important."""
    importance = torch.rand(1, 63, generator=torch.Generator().manual_seed(0))
    importance[:, 55:] += 9
    tokens = VisualTokens(torch.randn(1, 63, 4), importance)
    config = PruneConfig(method="attention", tokens=20)
    (kept,) = choose(tokens, config, SLICED).index
    expected: list[int] = []
    for crop, share in zip(
        SLICED.patches_of_crops(torch.device("cpu")), shares([15, *[8] * 6], 20), strict=True
    ):
        expected += sorted(crop[importance[0, crop].topk(share).indices].tolist())
    assert kept.tolist() == expected
