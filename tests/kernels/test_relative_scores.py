"""What `relative_scores` alone promises: finite weights of any scores, rounded once."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from padded_batch import LENGTHS, VALID, WAYS, drawn, padded
from vtprune_kernels import relative_scores_triton
from vtprune_kernels.relative_scores import SPECS

(SPEC,) = SPECS
WAY = pytest.mark.parametrize("way", ["reference", "launcher"])
INTERPRETED = pytest.mark.usefixtures("interpreted", "poisoned")


@WAY
@INTERPRETED
def test_what_encoders_do_not_give_is_a_finite_weight(way: str) -> None:
    nan, inf = math.nan, math.inf
    scores = torch.tensor(
        [[nan, 4.0, -1.0, 2.0], [inf, 4.0, -inf, nan], [0.0, -0.0, nan, -inf], [1e-40, 0, 0, 0]]
    )
    weight = getattr(SPEC, way)(scores)
    assert weight.tolist() == [
        [0.0, 1.0, 0.0, 0.5],
        [1.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],
        [torch.tensor(1e-40).double().mul(2.0**100).float().item(), 0.0, 0.0, 0.0],
    ]


@WAY
@INTERPRETED
def test_a_quotient_is_rounded_once(way: str) -> None:
    """Against exact fractions: no float32 beside the weight is nearer."""
    scores = torch.rand((1, 40), generator=torch.Generator().manual_seed(1))
    highest = Fraction(scores.max().item())
    for score, weight in zip(scores[0], getattr(SPEC, way)(scores)[0], strict=True):
        true = Fraction(score.item()) / highest
        beside = [torch.nextafter(weight, torch.tensor(end)).item() for end in (-1.0, 2.0)]
        nearest = min(abs(Fraction(other) - true) for other in beside)
        assert abs(Fraction(weight.item()) - true) <= nearest


@INTERPRETED
def test_the_highest_score_is_that_of_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relative_scores_triton, "_BLOCK", 32)
    scores = torch.arange(1.0, 101.0).roll(50)[None]
    assert torch.equal(SPEC.launcher(scores), (scores.double() / 100).float())


@pytest.mark.parametrize(("way", "garbage"), WAYS)
@INTERPRETED
def test_a_padded_batch_weighs_what_each_image_weighs(way: str, garbage: float) -> None:
    run, scores = getattr(SPEC, way), [rows[:, 0] for rows in drawn()]
    together = run(padded(scores, garbage), VALID)
    for weight, score, length in zip(together, scores, LENGTHS, strict=True):
        assert torch.equal(weight[:length], run(score[None])[0])
        assert not weight[length:].any()
