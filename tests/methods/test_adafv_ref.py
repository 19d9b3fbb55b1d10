"""AdaFV as published: the same two lists, and a token of both kept twice."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from drawn_tokens import COUNTS, KINDS, cosines, draw, keeps, ranked

import vllm_pruner
from vllm_pruner import methods
from vllm_pruner.methods.budget import Budget


def literal(given: dict, image: int, keep: int) -> list[int]:
    match = cosines(given["text"][image], given["projected"][image])
    t = (100 * match).softmax(dim=1).amax(dim=0).float()
    c = given["importance"][image].double()
    t = t.double() / t.double().sum()
    q = math.floor(0.25 * keep)
    free = keep - 2 * q
    by_t, by_c = ranked(t), ranked(c)
    st, sc = (
        torch.cat([torch.zeros(1).double(), scores[order[q : q + free]].cumsum(dim=0)])
        for scores, order in ((t, by_t), (c, by_c))
    )
    product = (st * sc.flip(0)).round(decimals=12)
    won = int(product.argmax())
    return sorted(by_t[: q + won] + by_c[: keep - q - won])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", COUNTS)
def test_it_is_the_formula(kind, tokens) -> None:
    given = draw(kind, 2, tokens)
    for keep in keeps(tokens):
        kept = vllm_pruner.select("adafv-ref", keep=keep, **given)
        assert kept.tolist() == [literal(given, image, keep) for image in range(2)], keep


def test_a_token_of_both_lists_is_kept_twice_and_the_repaired_method_has_it_once() -> None:
    given = draw("random", 1, 64)
    given["importance"][0, 40] = 100.0
    given["text"] = [given["projected"][0, 40:41] * 2.0]
    (twice,) = vllm_pruner.select("adafv-ref", keep=16, **given).tolist()
    (once,) = vllm_pruner.select("adafv", keep=16, **given).tolist()
    assert Counter(twice)[40] == 2
    assert len(twice) == 16 > len(set(twice))
    assert set(twice) < set(once)
    assert len(set(once)) == 16


def test_the_row_of_such_a_token_comes_twice() -> None:
    given = draw("random", 1, 64, words=0)
    index, rows = vllm_pruner.prune("adafv-ref", keep=16, **given)
    assert sorted(Counter(index[0].tolist()).values()) == [2] * 8
    assert torch.equal(rows[0, 0::2], rows[0, 1::2])


def test_the_budget_is_even_except_for_one() -> None:
    count = methods.get("adafv-ref").keep_count
    assert [count(576, Budget(tokens=k)) for k in (1, 2, 3, 64, 145)] == [1, 2, 2, 64, 144]
    assert count(576, Budget(rate=8 / 9)) == 64
