"""What a request asks of its answer is taken off its settings, and held against the limits."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.limits import Limits
from vllm_pruner.settings.wishes import Wishes, apart, wishes_fault


@pytest.mark.parametrize(
    ("said", "wishes", "rest"),
    [
        (None, None, None),
        ({"rate": 0.5}, None, {"rate": 0.5}),
        ({"rate": 0.5, "confidence": True}, Wishes(confidence=True), {"rate": 0.5}),
        ({"confidence": False, "retry_unpruned_below": None}, None, {}),
        ({"retry_unpruned_below": 0.5}, Wishes(retry_unpruned_below=0.5), {}),
        ("off", None, "off"),
    ],
    ids=str,
)
def test_wishes_are_no_settings(said: Any, wishes: Wishes | None, rest: Any) -> None:
    assert apart(said) == (wishes, rest)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"confidence": "yes"}, "confidence is 'yes'; it should be a valid boolean"),
        ({"retry_unpruned_below": 0}, "it should be greater than 0"),
        ({"retry_unpruned_below": -1.0}, "it should be greater than 0"),
        ({"retry_unpruned_below": 1e999}, "it should be a finite number"),
        ({"retry_unpruned_below": True}, "it should be a valid number"),
        ({"confidense": True}, "retry_unpruned_below; the nearest is confidence"),
        ({"keep": 0.25}, "rate is what is removed, 1 - keep, here 0.75"),
    ],
    ids=str,
)
def test_what_cannot_be_wished_is_said(said: Any, sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        apart(said)
    assert sentence in str(raised.value)


def test_nothing_is_answered_unpruned_where_no_request_may_be() -> None:
    limits, retry = Limits(min_rate=0.25), Wishes(retry_unpruned_below=0.5)
    assert wishes_fault(Limits(), retry) is None
    assert wishes_fault(limits, Wishes(confidence=True)) is None
    sentence = "allowed here: none, since at least 0.25 of an image is removed"
    assert sentence in str(wishes_fault(limits, retry).at_request())  # type: ignore[union-attr]
