"""The baselines by their own formulas: attention, uniform, random."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import pytest
import torch

import vllm_pruner


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_attention_keeps_the_highest_scores_and_of_equal_ones_the_first() -> None:
    importance = randn(4, 60).mul(3).round()
    for keep in range(61):
        kept = vllm_pruner.select(
            "attention", keep=keep, features=torch.zeros(4, 60, 1), importance=importance
        )
        for row, scores in zip(kept.tolist(), importance.tolist(), strict=True):
            ranked = sorted(range(60), key=lambda j: (-scores[j], j))
            assert row == sorted(ranked[:keep])


def test_attention_looks_at_no_features() -> None:
    importance = randn(2, 30)
    assert torch.equal(
        vllm_pruner.select("attention", keep=9, features=randn(2, 30, 4), importance=importance),
        vllm_pruner.select("attention", keep=9, features=randn(2, 30, 7), importance=importance),
    )


@pytest.mark.parametrize("tokens", [1, 2, 7, 64, 576, 577, 2880])
def test_uniform_keeps_the_middle_of_each_of_as_many_equal_stretches(tokens) -> None:
    keeps = range(tokens + 1) if tokens <= 64 else [0, 1, 3, 64, tokens // 2, tokens - 1, tokens]
    for keep in keeps:
        kept = vllm_pruner.select("uniform", keep=keep, features=torch.zeros(tokens, 1))
        middles = [floor((i + Fraction(1, 2)) * tokens / keep) for i in range(keep)]
        assert kept.tolist() == middles


def test_random_keeps_other_tokens_of_another_image() -> None:
    kept = vllm_pruner.select("random", keep=64, features=randn(20, 576, 8))
    assert len(set(map(tuple, kept.tolist()))) == 20


def test_random_notices_a_change_of_one_bit() -> None:
    features = randn(576, 8)
    changed = features.clone()
    changed[300, 3] = torch.nextafter(changed[300, 3], torch.tensor(torch.inf))
    first, second = (
        vllm_pruner.select("random", keep=64, features=image) for image in (features, changed)
    )
    assert not torch.equal(first, second)


def test_random_keeps_other_tokens_with_another_seed() -> None:
    features = randn(576, 8)
    seeds = [0, 1, 2, -1, (1 << 63) - 1, -(1 << 63)]
    kept = [vllm_pruner.select("random", keep=64, features=features, seed=s) for s in seeds]
    assert len({tuple(row.tolist()) for row in kept}) == len(seeds)
    assert torch.equal(kept[0], vllm_pruner.select("random", keep=64, features=features))


def test_random_prefers_no_position_and_no_pair_of_positions() -> None:
    """4,000 images, 4 of 16 tokens: each position is expected 1,000 times, each pair 200 times."""
    kept = vllm_pruner.select("random", keep=4, features=randn(4000, 16, 4))
    chosen = torch.zeros(4000, 16).scatter_(1, kept, 1.0)
    together = chosen.T @ chosen
    single, pairs = together.diagonal(), together[~torch.eye(16, dtype=torch.bool)]
    assert ((single - 1000).abs() < 5 * (1000 * 0.75) ** 0.5).all()
    assert ((pairs - 200).abs() < 5 * (200 * 0.95) ** 0.5).all()
