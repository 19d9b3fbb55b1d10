"""How well kept tokens stand for dropped ones: the number, and for which images it is computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.methods.base import Kept, VisualTokens
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.worker.batches import Group
from vllm_pruner.worker.coverage import _MOST, Coverage, coverage

LAYOUT = GridLayout(4, 5)
FEATURES = torch.randn(3, 20, 6, generator=torch.Generator().manual_seed(0))
INDEX = torch.tensor([[0, 3, 19], [1, 2, 3], [7, 8, 11]])


def _literal(features: torch.Tensor, kept: list[int]) -> float:
    dropped = [n for n in range(len(features)) if n not in kept]
    best = [
        max(float(cosine_similarity(features[n], features[k], dim=0)) for k in kept)
        for n in dropped
    ]
    return sum(best) / len(best)


def test_it_is_the_mean_of_the_best_similarities() -> None:
    found = coverage(FEATURES, INDEX, torch.zeros_like(INDEX, dtype=torch.bool))
    expected = [_literal(FEATURES[n], INDEX[n].tolist()) for n in range(3)]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_a_newline_covers_nothing() -> None:
    """Its patch is 0, which is dropped all the same unless it is kept itself."""
    index, newline = torch.tensor([[3, 0, 19], [0, 0, 4]]), torch.zeros(2, 3, dtype=torch.bool)
    newline[:, 1] = True
    found = coverage(FEATURES[:2], index, newline)
    expected = [_literal(FEATURES[0], [3, 19]), _literal(FEATURES[1], [0, 4])]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_what_keeps_everything_is_covered() -> None:
    everything = torch.arange(20).expand(3, -1)
    found = coverage(FEATURES, everything, torch.zeros_like(everything, dtype=torch.bool))
    assert found.tolist() == [1.0, 1.0, 1.0]


def _group(config: PruneConfig, small_grid: tuple[int, int] | None = None) -> Group:
    group = Group(LAYOUT, config, 3, 20, small_grid)
    group.plans.extend(ImagePlan(config, f"{n:02x}") for n in range(3))
    return group


def test_it_is_computed_for_images_that_were_named_before() -> None:
    config = PruneConfig.parse({"tokens": 3})
    group, tokens, kept = _group(config), VisualTokens(FEATURES), Kept(INDEX)
    names = [plan.identity for plan in group.plans]
    known = Coverage()
    known.note(tokens, kept, group)
    assert known.of(names) == [None, None, None]
    known.watch(names[1:])
    known.note(tokens, kept, group)
    first, *others = known.of(names)
    expected = [_literal(FEATURES[n], INDEX[n].tolist()) for n in (1, 2)]
    assert first is None and others == pytest.approx(expected, abs=1e-6)
    known.watch(names[1:])
    assert known.of(names)[1:] == others, "it stays known"


@pytest.mark.parametrize(
    ("config", "kept", "small_grid"),
    [
        ({"rate": 0.0}, Kept(INDEX), None),
        ({"tokens": 3}, Kept(INDEX, FEATURES[:, :3]), None),
        ({"tokens": 3}, Kept(INDEX), (1, 3)),
    ],
    ids=["unpruned", "merged", "shrunk"],
)
def test_not_where_no_token_was_kept_or_dropped(
    config: dict[str, Any], kept: Kept, small_grid: tuple[int, int] | None
) -> None:
    group = _group(PruneConfig.parse(config), small_grid)
    known, names = Coverage(), [plan.identity for plan in group.plans]
    known.watch(names)
    known.note(VisualTokens(FEATURES), kept, group)
    assert known.of(names) == [None, None, None]


def test_the_images_named_last_are_remembered() -> None:
    known = Coverage()
    known.watch([f"{n:x}" for n in range(_MOST)])
    known.watch(["0", "new"])
    assert len(known._named) == _MOST and "0" in known._named and "1" not in known._named
