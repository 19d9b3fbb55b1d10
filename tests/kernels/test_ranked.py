"""What `ranked` and `picked_sorted` alone promise: the order of every float, padding last, and
indices as a gather and a sort would give them."""

from __future__ import annotations

import math

import pytest
import torch
from padded_batch import LENGTHS, VALID, WAYS, drawn, padded
from vtprune_kernels import picked_sorted
from vtprune_kernels.picked_sorted import SPECS as PICKED
from vtprune_kernels.ranked import SPECS as RANKED

(RANKED_SPEC,), (PICKED_SPEC,) = RANKED, PICKED
WAY = pytest.mark.parametrize("way", ["reference", "launcher"])
INTERPRETED = pytest.mark.usefixtures("interpreted", "poisoned")


@WAY
@INTERPRETED
def test_every_float_has_its_place_in_the_order(way: str) -> None:
    nan, inf = math.nan, math.inf
    scores = torch.tensor([[nan, 1.0, -0.0, 0.0, inf, -nan, -inf, 2.0, -inf]])
    assert getattr(RANKED_SPEC, way)(scores).tolist() == [[0, 5, 4, 7, 1, 2, 3, 6, 8]]


@WAY
@INTERPRETED
def test_what_does_not_exist_comes_last_in_its_own_order(way: str) -> None:
    """Even after what is infinitely low, and wherever it stands."""
    scores = torch.tensor([[9.0, -math.inf, math.nan, 3.0, 3.0, 5.0]])
    valid = torch.tensor([[False, True, False, True, True, False]])
    assert getattr(RANKED_SPEC, way)(scores, valid).tolist() == [[3, 4, 1, 0, 2, 5]]


@pytest.mark.parametrize(("way", "garbage"), WAYS)
@INTERPRETED
def test_a_padded_batch_ranks_as_each_image_does(way: str, garbage: float) -> None:
    run, scores = getattr(RANKED_SPEC, way), [rows[:, 0] for rows in drawn()]
    together = run(padded(scores, garbage), VALID)
    for order, score, length in zip(together, scores, LENGTHS, strict=True):
        assert torch.equal(order[:length], run(score[None])[0])
        assert order[length:].tolist() == list(range(length, len(order)))


@WAY
@INTERPRETED
def test_what_is_picked_is_written_out(way: str) -> None:
    order = torch.tensor([[4, 2, 0, 5, 1, 3], [0, 1, 2, 3, 4, 5]])
    places = torch.tensor([[3, 0, -1], [-1, 1, 4]])
    run = getattr(PICKED_SPEC, way)
    # 4 and 2 first, then of 0, 5, 1, 3 the fourth and the first.
    assert run(order[:1], 2, places[:1, :2], 4)[0].tolist() == [0, 2, 3, 4]
    firsts = torch.tensor([1, 0])
    assert run(order, 2, places, 4, firsts).tolist() == [[1, 2, 4, -1], [1, 4, -1, -1]]
    assert run(order, 2, places, 2, firsts).tolist() == [[1, 2], [1, 4]]
    assert run(order, 0, places[:, :0], 0).tolist() == [[], []]


@pytest.mark.parametrize(("first", "keep"), [(-1, 1), (7, 7), (2, 5)])
def test_nonsense_is_refused(first: int, keep: int) -> None:
    with pytest.raises(ValueError, match="allowed: 0 to"):
        picked_sorted(torch.arange(6)[None], first, torch.zeros(1, 2, dtype=torch.int64), keep)
