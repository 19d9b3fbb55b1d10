"""HiPrune against its formula."""

from __future__ import annotations

import pytest
import torch
from drawn_tokens import COUNTS, KINDS, draw, keeps, ranked

import vllm_pruner


def literal(given: dict, image: int, keep: int, alpha: float = 0.1) -> list[int]:
    total, columns = len(given["received"][image]), given["grid"][1]
    anchors = ranked(given["received_midway"][image])[: min(keep, round(alpha * keep / 5))]
    around = {
        min(max(anchor + step, 0), total - 1)
        for anchor in anchors
        for step in (-1, 1, -columns, columns)
    }
    by_last = ranked(given["received"][image])
    first = [j for j in by_last if j in anchors]
    second = [j for j in by_last if j in around and j not in anchors]
    third = [j for j in by_last if j not in anchors and j not in around]
    return sorted([*first, *second, *third][:keep])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", COUNTS)
@pytest.mark.parametrize("alpha", [0.1, 0.0, 0.5, 1.0])
def test_it_is_the_formula(kind, tokens, alpha) -> None:
    given = draw(kind, 3, tokens)
    for keep in keeps(tokens):
        kept = vllm_pruner.select("hiprune", keep=keep, **given, alpha=alpha)
        assert kept.tolist() == [literal(given, image, keep, alpha) for image in range(3)]


def test_a_cross_that_the_middle_layer_looks_at_is_kept() -> None:
    given = draw("random", 1, 576)
    given["received"][0] = torch.linspace(1, 0.5, 576)
    given["received_midway"][0, 300] = 2.0
    (kept,) = vllm_pruner.select("hiprune", keep=64, **given).tolist()
    assert kept == [*range(59), 276, 299, 300, 301, 324]


def test_without_an_alpha_it_is_the_last_layer_alone() -> None:
    given = draw("random", 2, 64)
    by_last = {**given, "importance": given["received"]}
    assert torch.equal(
        vllm_pruner.select("hiprune", keep=20, **given, alpha=0.0),
        vllm_pruner.select("attention", keep=20, **by_last),
    )
