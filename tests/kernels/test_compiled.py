"""The selection path under `torch.compile`: one graph, no break, the same result."""

from __future__ import annotations

import pytest
import torch
from vtprune_kernels import (
    cls_importance,
    column_importance,
    cosine_gram,
    dedup,
    gather_rows,
    picked_sorted,
    ranked,
    top_k_sorted,
)
from vtprune_kernels.spec import features

HEADS, HEAD_SIZE = 2, 8


def _select(query: torch.Tensor, key: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    importance = cls_importance(query, key, HEADS, HEAD_SIZE**-0.5)
    order = ranked(importance)
    diverse = dedup(cosine_gram(rows, order[:, 4:]), 4, 4)
    return gather_rows([rows], picked_sorted(order, 4, diverse, 8))[0]


def _inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    width = HEADS * HEAD_SIZE
    query, key, rows = (
        features("random", (2, 25, width), torch.float32, "cpu", s) for s in (1, 2, 3)
    )
    return query, key, rows[:, 1:]


def test_whole_selection_is_one_graph() -> None:
    compiled = torch.compile(_select, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*_inputs()), _select(*_inputs()), rtol=0, atol=0)


def test_importance_without_class_token_is_one_graph() -> None:
    query, key, _ = _inputs()

    def score(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return top_k_sorted(column_importance(query, key, HEADS, 0.35), 5)

    compiled = torch.compile(score, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(query, key), score(query, key), rtol=0, atol=0)


def test_registered_operators_stay_whole_in_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU takes: the operators as opaque steps, here with the references behind them."""
    import sys

    for name in (
        *("cls_importance", "ranked", "cosine_gram", "dedup", "picked_sorted", "gather_rows"),
    ):
        module = sys.modules[f"vtprune_kernels.{name}"]
        monkeypatch.setattr(module, "use_triton", lambda *tensors: True)
    compiled = torch.compile(_select, fullgraph=True, backend="aot_eager")
    found = compiled(*_inputs())
    monkeypatch.undo()
    torch.testing.assert_close(found, _select(*_inputs()), rtol=0, atol=0)
