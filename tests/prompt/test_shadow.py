"""What two answers have in common, and which requests are drawn to be compared."""

from __future__ import annotations

import pytest

from vllm_pruner.prompt.agreement import Agreement, Answer, rate_label
from vllm_pruner.prompt.shadow import is_drawn


def _agreement(
    pruned: tuple[int, ...],
    unpruned: tuple[int, ...],
    first: dict[int, float] | None = None,
    unpruned_first: dict[int, float] | None = None,
) -> Agreement:
    return Agreement(Answer("", pruned, first or {}), Answer("", unpruned, unpruned_first or {}))


@pytest.mark.parametrize(
    ("one", "other", "agreed", "common"),
    [
        ((1, 2, 3), (1, 2, 3), True, 3),
        ((1, 2, 3), (1, 2, 4), False, 2),
        ((1, 2), (1, 2, 3), False, 2),
        ((9, 2, 3), (1, 2, 3), False, 0),
        ((), (), True, 0),
    ],
)
def test_answers_agree_whole_or_up_to_where_they_part(
    one: tuple[int, ...], other: tuple[int, ...], agreed: bool, common: int
) -> None:
    found = _agreement(one, other)
    assert (found.agreed, found.common) == (agreed, common)
    assert found.longer == max(len(one), len(other))


def test_the_gap_is_what_the_unpruned_first_token_loses() -> None:
    unpruned = {7: -0.1, 5: -2.5}
    assert _agreement((7,), (7,), {7: -0.6, 5: -1.0}, unpruned).gap == pytest.approx(0.5)
    assert _agreement((5,), (7,), {5: -0.2, 7: -2.1}, unpruned).gap == pytest.approx(2.0)
    # Not among the likeliest when pruned: at least as much as the last of these.
    assert _agreement((5,), (7,), {5: -0.2, 3: -4.1}, unpruned).gap == pytest.approx(4.0)
    assert _agreement((7,), (7,), {}, unpruned).gap is None


@pytest.mark.parametrize(
    ("kept", "label"), [(64, "0.90"), (288, "0.50"), (1, "0.95"), (575, "0.05"), (144, "0.75")]
)
def test_a_rate_is_one_of_nineteen_labels(kept: int, label: str) -> None:
    assert rate_label(576, kept) == label


def test_a_share_is_drawn_by_name_and_a_larger_one_has_the_smaller_in_it() -> None:
    names = [f"request-{number}" for number in range(20_000)]
    drawn = {share: {n for n in names if is_drawn(n, share)} for share in (0.0, 0.005, 0.1, 1.0)}
    assert drawn[0.0] == set() and drawn[1.0] == set(names)
    assert drawn[0.005] < drawn[0.1]
    # Four standard deviations.
    assert abs(len(drawn[0.1]) - 2000) < 4 * (20_000 * 0.1 * 0.9) ** 0.5
    assert abs(len(drawn[0.005]) - 100) < 4 * 100**0.5
    assert drawn[0.1] == {name for name in names if is_drawn(name, 0.1)}
