"""Whatever a method returns, `Method.choose` gives a `Kept`; the name in 0.1 still works."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import vllm_pruner
from vllm_pruner.method import Merged
from vllm_pruner.methods.base import Kept, Method, Options, VisualTokens

INDEX, ROWS = torch.tensor([[0, 2], [1, 2]]), torch.full((2, 2, 5), 7.0)
TOKENS = VisualTokens(torch.arange(30.0).view(2, 3, 5))


def _method(kept: Any) -> Method:
    return Method("fixed", lambda tokens, keep, options: kept)


def test_a_plain_tensor_has_no_rows() -> None:
    kept = _method(INDEX).choose(TOKENS, 2, Options())
    assert kept.index is INDEX
    assert kept.rows is None


@pytest.mark.parametrize("kind", [Kept, Merged])
def test_merged_rows_pass_as_they_are(kind: type[Kept]) -> None:
    kept = _method(kind(INDEX, ROWS)).choose(TOKENS, 2, Options())
    assert kept.index is INDEX
    assert kept.rows is ROWS


@pytest.mark.parametrize(
    ("kept", "rows"),
    [(INDEX, TOKENS.features[[[0], [1]], INDEX]), (Merged(INDEX, ROWS), ROWS)],
    ids=["chosen", "merged"],
)
def test_offline_rows_are_those_chosen_or_those_merged(kept: Any, rows: torch.Tensor) -> None:
    index, found = vllm_pruner.prune(_method(kept), keep=2, features=TOKENS.features)
    assert torch.equal(index, INDEX)
    assert torch.equal(found, rows)
