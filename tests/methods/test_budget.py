"""How many tokens an image keeps."""

from __future__ import annotations

from fractions import Fraction

import pytest

from vllm_pruner.methods.budget import Budget, keep_count


@pytest.mark.parametrize(
    "tokens, budget, kept",
    [
        pytest.param(576, Budget(rate=8 / 9), 64, id="default rate of LLaVA-1.5"),
        pytest.param(576, Budget(rate=0.0), 576, id="rate 0"),
        pytest.param(576, Budget(rate=0.9), 58, id="57.6 rounded up"),
        pytest.param(576, Budget(rate=0.975), 14, id="14.4 rounded down"),
        pytest.param(576, Budget(rate=0.999999), 1, id="at least one"),
        pytest.param(1, Budget(rate=0.9), 1, id="one of one"),
        pytest.param(0, Budget(rate=0.5), 0, id="none of none by rate"),
        pytest.param(3, Budget(rate=0.5), 2, id="1.5 to even, up"),
        pytest.param(5, Budget(rate=0.5), 2, id="2.5 to even, down"),
        pytest.param(2880, Budget(rate=8 / 9), 320, id="LLaVA-NeXT"),
        pytest.param(576, Budget(tokens=64), 64, id="a number"),
        pytest.param(576, Budget(tokens=1), 1, id="the number one"),
        pytest.param(576, Budget(tokens=576), 576, id="as many as there are"),
        pytest.param(576, Budget(tokens=577), 576, id="more than there are"),
        pytest.param(0, Budget(tokens=5), 0, id="none of none by number"),
    ],
)
def test_the_count_is(tokens, budget, kept) -> None:
    assert keep_count(tokens, budget) == kept
    assert type(keep_count(tokens, budget)) is int


@pytest.mark.parametrize("tokens", [1, 2, 7, 64, 576, 577, 2880])
def test_a_rate_keeps_the_nearest_whole_number_between_one_and_all(tokens) -> None:
    for thousandths in range(1000):
        exact = tokens * (1 - Fraction(thousandths, 1000))
        kept = keep_count(tokens, Budget(rate=thousandths / 1000))
        assert 1 <= kept <= tokens
        assert kept == 1 or abs(kept - exact) <= Fraction(1, 2) + Fraction(1, 10**9)


@pytest.mark.parametrize("tokens", [1, 7, 576])
def test_a_higher_rate_never_keeps_more(tokens) -> None:
    kept = [keep_count(tokens, Budget(rate=rate / 997)) for rate in range(997)]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] == tokens
    assert kept[-1] == 1


def test_a_budget_of_neither_kind_is_an_error_in_the_program() -> None:
    with pytest.raises(AssertionError, match="a rate or a number"):
        keep_count(576, Budget())
