"""Sums of scores: in any order, beside any padding, exact where float32 allows it."""

from __future__ import annotations

import pytest
import torch

from vllm_pruner.methods.scores import nonnegative, shares, unit_below, whole

N = 577


def _scores() -> torch.Tensor:
    """Of every size that attention has, and a row of zeros."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(6, N, generator=generator) ** torch.tensor([[1], [4], [9], [30], [60], [1]])
    scores[5] = 0.0
    return scores


def test_shares_are_the_same_bits_in_any_order_and_beside_any_padding() -> None:
    scores = _scores()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    assert torch.equal(shares(scores[:, order]), shares(scores)[:, order])
    padded = torch.nn.functional.pad(scores, (0, 300))
    assert torch.equal(shares(padded)[:, :N], shares(scores))


def test_shares_are_shares() -> None:
    scores = _scores()
    exact = scores.double() / scores.double().sum(dim=1, keepdim=True).clamp_min(1e-300)
    torch.testing.assert_close(shares(scores), exact, rtol=N * 2.0**-40, atol=0)
    assert shares(torch.zeros(2, 0)).shape == (2, 0)


@pytest.mark.parametrize("highest", [1.0, 0.9999, 3e-39, 2.0**-149, 3e38])
def test_a_float32_down_to_a_65536th_of_the_highest_is_a_multiple(highest: float) -> None:
    scores = torch.rand(1000, generator=torch.Generator().manual_seed(2)) * highest
    scores = torch.cat([scores.clamp_min(highest / 2**16), torch.tensor([highest])])
    unit = unit_below(scores.amax(dim=0, keepdim=True))
    assert torch.equal(whole(scores, unit).double() * unit, scores.double())
    assert 2**39 <= int(whole(scores, unit).max()) <= 2**40


def test_what_no_encoder_gives_is_a_number() -> None:
    odd = torch.tensor([[1.0, torch.nan, -2.0, torch.inf, -torch.inf]])
    most = torch.finfo(torch.float32).max
    assert nonnegative(odd, None).tolist() == [[1.0, 0.0, 0.0, most, 0.0]]
    assert nonnegative(odd, odd > 0).tolist() == [[1.0, 0.0, 0.0, most, 0.0]]
    assert nonnegative(odd, odd > 1).tolist() == [[0.0, 0.0, 0.0, most, 0.0]]
