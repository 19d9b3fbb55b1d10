"""Sizes of images against the operator's limits."""

from __future__ import annotations

import pytest

from vllm_pruner.settings.bounds import size_fault
from vllm_pruner.settings.limits import Limits


@pytest.mark.parametrize("size", [(1, 1), (12_032, 9_024), (9_024, 12_032), (60_000, 120), (2, 1)])
def test_photographs_and_long_documents_are_within_the_defaults(size: tuple[int, int]) -> None:
    assert size_fault(Limits(), size) is None


@pytest.mark.parametrize(
    ("limits", "size", "sentence"),
    [
        ({}, (1, 60_000), "image is 1 x 60000 pixels; allowed here: max_side_ratio 500"),
        ({}, (60_000, 119), "image is 60000 x 119 pixels; allowed here: max_side_ratio 500"),
        ({}, (13_000, 13_000), "image is 13000 x 13000 pixels; allowed here: max_pixels 120000000"),
        ({}, None, "image is more than 178956970 pixels; allowed here: max_pixels 120000000"),
        (
            {"max_pixels": 178_956_970, "max_side_ratio": 1e9},
            None,
            "image is more than 178956970 pixels; allowed here: max_pixels 178956970",
        ),
        ({"max_pixels": 99}, (10, 10), "image is 10 x 10 pixels; allowed here: max_pixels 99"),
        (
            {"max_side_ratio": 1.5},
            (3, 5),
            "image is 3 x 5 pixels; allowed here: max_side_ratio 1.5",
        ),
    ],
    ids=str,
)
def test_others_are_answered_with_the_limit(
    limits: dict[str, float], size: tuple[int, int] | None, sentence: str
) -> None:
    fault = size_fault(Limits.model_validate(limits), size)
    assert fault is not None
    assert fault.at_request() == sentence
