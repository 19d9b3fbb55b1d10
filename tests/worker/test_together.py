"""Images of unequal length that one call selects from: each keeps what it keeps alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from drawn_tokens import KINDS, WIDTH, draw

from vllm_pruner import methods
from vllm_pruner.layout.crop_budget import choose
from vllm_pruner.layout.crop_layout import CropLayout
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.tile_layout import TileLayout
from vllm_pruner.methods.base import VisualTokens
from vllm_pruner.methods.texts import Texts
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.worker.batches import Group
from vllm_pruner.worker.together import apart, padded, share_of, together

RAGGED = [name for name in methods.built_in() if methods.get(name).ragged]
GRIDS = [(5, 7), (1, 1), (8, 8), (4, 15), (2, 3)]


def _group(grid: tuple[int, int], number: int = 1, **settings: Any) -> Group:
    layout, config = GridLayout(*grid), PruneConfig.parse(settings)
    plans = [ImagePlan(config, "", ()) for _ in range(number)]
    keep = config.keep_count(layout.tokens)
    return Group(layout, config, keep, layout.encoded, plans=plans)


def _tokens(kind: str, group: Group, seed: int) -> VisualTokens:
    drawn = draw(kind, len(group.plans), group.layout.tokens, words=seed % 3, seed=seed)
    return VisualTokens(**{**drawn, "grid": None})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [0.05, 0.5, 8 / 9])
@pytest.mark.parametrize("name", RAGGED)
def test_an_image_keeps_what_it_keeps_alone(name: str, rate: float, kind: str) -> None:
    groups = [_group(grid, 1 + i % 2, method=name, rate=rate) for i, grid in enumerate(GRIDS)]
    tokens = [_tokens(kind, group, seed) for seed, group in enumerate(groups)]
    method, options = groups[0].config.resolved
    joined = padded(tokens, groups)
    assert len(joined.features) == sum(len(group.plans) for group in groups)
    kept = method.choose(joined, max(group.keep for group in groups), options)
    assert kept.rows is None
    for group, alone, found in zip(
        groups, tokens, apart(kept.index, joined, tokens, groups), strict=True
    ):
        wanted = method.choose(alone, group.keep, options).index
        assert torch.equal(found.index, wanted), group.layout


@pytest.mark.parametrize("rest", [torch.nan, 1e9])
@pytest.mark.parametrize("name", RAGGED)
def test_what_padding_holds_changes_nothing(name: str, rest: float) -> None:
    """A graph's buffers hold there what an earlier image left."""
    groups = [_group(grid, method=name, rate=0.5) for grid in GRIDS]
    tokens = [_tokens("random", group, seed) for seed, group in enumerate(groups)]
    method, options = groups[0].config.resolved
    joined = padded(tokens, groups)
    assert joined.ragged is not None
    padding = ~joined.ragged.valid(joined.features.shape[1])
    for field in ("features", "importance", "projected", "keys", "received"):
        if (column := getattr(joined, field)) is not None:
            column.masked_fill_(padding.view(padding.shape + (1,) * (column.ndim - 2)), rest)
    most = max(group.keep for group in groups)
    for found, group, alone in zip(
        apart(method.choose(joined, most, options).index, joined, tokens, groups),
        groups,
        tokens,
        strict=True,
    ):
        assert torch.equal(found.index, method.choose(alone, group.keep, options).index)


CROPS = [
    CropLayout(16, 4, (2, 2), (1, 7), (0, 8)),  # a picture in landscape
    CropLayout(16, 4, (1, 2), (0, 4), (0, 8)),
    CropLayout(16, 4, (2, 1), (0, 8), (1, 3)),
    CropLayout(16, 4, (2, 2), (0, 8), (0, 8), resampled=(5, 5)),
]


@pytest.mark.parametrize("rate", [0.3, 0.8])
@pytest.mark.parametrize("name", RAGGED)
def test_pictures_in_crops_keep_what_they_keep_alone(name: str, rate: float) -> None:
    """Newlines included, which are chosen after the method."""
    groups = [replace(_group((1, 1), method=name, rate=rate), layout=layout) for layout in CROPS]
    groups = [
        replace(each, keep=each.config.keep_count(each.layout.tokens), rows=each.layout.encoded)
        for each in groups
    ]
    assert together(groups) == [[0, 1, 2, 3]]
    tokens = [
        VisualTokens(**{**draw("random", 1, group.layout.patches, seed=seed), "grid": None})
        for seed, group in enumerate(groups)
    ]
    method, options = groups[0].config.resolved
    most = max(map(share_of, groups))
    joined = padded(tokens, groups)
    found = apart(method.choose(joined, most, options).index, joined, tokens, groups)
    for each, group, alone in zip(found, groups, tokens, strict=True):
        wanted = choose(alone, group.config, group.layout).index
        assert torch.equal(each.index, wanted), group.layout


def test_crops_with_budgets_of_their_own_are_selected_alone() -> None:
    whole = _group((8, 8), method="attention", rate=0.5)
    groups = [replace(whole, layout=CROPS[0]), replace(whole, layout=TileLayout(4, 3))]
    assert together(groups) == [[0, 1]]
    fixed = replace(whole, layout=TileLayout(4, 3, fixed_shares=True))
    assert together([fixed, fixed]) == [[0], [1]]
    of_crops = _group((8, 8), method="attention", rate=0.5, crop_budget="per_crop")
    groups = [replace(of_crops, layout=layout) for layout in CROPS]
    assert together(groups) == [[0], [1], [2], [3]]


def test_what_the_method_needs_not_may_be_there_of_some_images() -> None:
    """Interpolated tokens are projected, whatever the method; those of other images are not."""
    groups = [_group(grid, method="vispruner", tokens=3) for grid in ((2, 4), (3, 4))]
    tokens = [_tokens("random", group, seed) for seed, group in enumerate(groups)]
    for few in (0, 1):
        some = [
            replace(each, projected=None) if at == few else each for at, each in enumerate(tokens)
        ]
        joined = padded(some, groups)
        assert joined.projected is None and joined.keys is None
        assert joined.importance is not None


def test_nan_and_infinite_importance_is_no_padding() -> None:
    groups = [_group(grid, method="vispruner", tokens=3) for grid in ((2, 4), (3, 4))]
    tokens = [_tokens("random", group, seed) for seed, group in enumerate(groups)]
    odd = torch.tensor([[-torch.inf, torch.nan, *[-torch.inf] * 6]])
    tokens[0] = replace(tokens[0], importance=odd)
    method, options = groups[0].config.resolved
    joined = padded(tokens, groups)
    found = apart(method.choose(joined, 3, options).index, joined, tokens, groups)
    for alone, each in zip(tokens, found, strict=True):
        assert torch.equal(each.index, method.choose(alone, 3, options).index)


def test_what_is_selected_in_one_call() -> None:
    groups = [
        _group((10, 10), method="vispruner", rate=0.5),
        _group((9, 9), method="vispruner", tokens=7),
        _group((3, 3), method="vispruner", rate=0.5),
        _group((10, 11), method="hiprune", rate=0.5),  # looks at neighbours in one grid
        _group((10, 12), method="vispruner", rate=0.5, options={"step": 3}),
        _group((11, 11), rate=0.0),
        _group((8, 16), method="vispruner", rate=0.9),
        _group((8, 8), method="vispruner", rate=0.9),
    ]
    groups.append(replace(groups[0], layout=GridLayout(5, 5, frames=4)))
    groups.append(replace(groups[0], small_grid=(2, 2)))
    assert together(groups) == [[0, 1, 6], [2, 7], [3], [4], [5], [8], [9]]


def test_widths_and_texts_go_along() -> None:
    groups = [_group((2, 2), 2, method="cdpruner"), _group((1, 3), method="cdpruner")]
    tokens = [_tokens("random", group, seed + 1) for seed, group in enumerate(groups)]
    joined = padded(tokens, groups)
    assert joined.features.shape == (3, 4, WIDTH)
    assert isinstance(joined.text, Texts)
    assert joined.text.ends.tolist() == [0, 1, 2, 4]
    texts = [text for each in tokens for text in each.text or ()]
    assert all(map(torch.equal, joined.text, texts))
    assert joined.ragged is not None
    assert joined.ragged.lengths.tolist() == [4, 4, 3]
    assert joined.ragged.keeps.tolist() == [group.keep for group in groups for _ in group.plans]
    assert joined.ragged.least == min(group.keep for group in groups)
