"""The server's own selection in graphs: what they hold, and that they keep what the method keeps.

A graph is the method, run again on the buffers that it was recorded with, which is all of it but
the GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from vllm_pruner import methods
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.methods.base import TOWER, Kept, Need, VisualTokens
from vllm_pruner.settings.config import DEFAULT_METHOD, PruneConfig
from vllm_pruner.tower import FEATURES
from vllm_pruner.worker import selection_graphs
from vllm_pruner.worker.host_free import HostFree
from vllm_pruner.worker.selection_graphs import IMAGES, Recorded, SelectionGraphs

LAYOUT = GridLayout(6, 8)
WIDTHS = {FEATURES: 16, "importance": 0, "keys": 8, "received": 0, "received_midway": 0}

HELD = ["attention", "divprune", "prumerge+", "random", "scope", "uniform", "vispruner"]
HELD += ["visionzip"]
"""The methods that read no text and do not meet the host."""


class _Tower:
    """The columns that a tower has, without one: nothing here encodes."""

    module, own_width = nn.Linear(16, 16), None

    def columns(self, needs: Any) -> dict[str, Any]:
        return {name: (WIDTHS[name], torch.float32) for name in (FEATURES, *needs)}

    def project(self, features: torch.Tensor) -> torch.Tensor:
        return features * 2


def _again(choose: Callable[[], Kept]) -> Recorded:
    """Record a selection as a graph does: a replay writes into the same buffers."""
    kept = choose()
    kept = Kept(kept.index.contiguous(), kept.rows)  # a graph's output is never expanded

    def replay() -> None:
        made = choose()
        kept.index.copy_(made.index)
        if kept.rows is not None:
            assert made.rows is not None
            kept.rows.copy_(made.rows)

    return replay, kept


def _graphs(record: Callable[..., Recorded] = _again, **settings: Any) -> SelectionGraphs | None:
    return selection_graphs.selection_graphs(
        PruneConfig(**settings),
        LAYOUT,
        _Tower(),  # type: ignore[arg-type]
        record,
    )


def _tokens(method: str, images: int, seed: int = 0) -> VisualTokens:
    draw = torch.Generator().manual_seed(seed)
    needs = methods.get(method).needs
    columns = {
        name: torch.rand((images, LAYOUT.tokens, width)[: 3 if width else 2], generator=draw)
        for name, width in WIDTHS.items()
        if name == FEATURES or name in needs & TOWER
    }
    projected = columns[FEATURES] * 2 if Need.PROJECTED in needs else None
    return VisualTokens(**columns, projected=projected, grid=LAYOUT.whole_grid)


@pytest.mark.parametrize("method", HELD)
def test_every_number_of_images_keeps_what_the_method_keeps(method: str) -> None:
    config = PruneConfig(method=method, tokens=10)
    graphs = _graphs(method=method, tokens=10)
    assert graphs is not None
    for images in range(1, IMAGES[-1] + 1):
        tokens = _tokens(method, images, seed=images)
        kept = graphs.kept(tokens, config, 10)
        expected = config.resolved[0].choose(tokens, 10, config.resolved[1])
        assert kept is not None
        assert torch.equal(kept.index, expected.index)
        assert (kept.rows is None) == (expected.rows is None)
        if kept.rows is not None and expected.rows is not None:
            assert torch.equal(kept.rows, expected.rows)


def test_what_was_kept_outlives_the_next_replay() -> None:
    graphs, config = _graphs(tokens=10), PruneConfig(tokens=10)
    assert graphs is not None
    first = graphs.kept(_tokens(DEFAULT_METHOD, 2), config, 10)
    assert first is not None
    copy = first.index.clone()
    graphs.kept(_tokens(DEFAULT_METHOD, 2, seed=1), config, 10)
    assert torch.equal(first.index, copy)


@pytest.mark.parametrize(
    ("settings", "keep", "images"),
    [
        ({"method": "attention", "tokens": 10}, 10, 1),
        ({"tokens": 10, "options": {"alpha": 0.5}}, 10, 1),
        ({"tokens": 11}, 11, 1),
        ({"tokens": 10}, 10, IMAGES[-1] + 1),
    ],
)
def test_another_selection_than_the_servers_own_runs_eagerly(
    settings: dict[str, Any], keep: int, images: int
) -> None:
    graphs = _graphs(tokens=10)
    assert graphs is not None
    method = settings.get("method", DEFAULT_METHOD)
    assert graphs.kept(_tokens(method, images), PruneConfig(**settings), keep) is None


def test_a_request_that_says_what_the_server_does_is_held_too() -> None:
    graphs = _graphs(tokens=10)
    assert graphs is not None
    config = PruneConfig(rate=1 - 10 / 48, floor="off")
    assert graphs.kept(_tokens(DEFAULT_METHOD, 1), config, 10) is not None


def test_the_default_is_held() -> None:
    assert DEFAULT_METHOD in HELD


@pytest.mark.parametrize("method", sorted({*methods.built_in()} - {*HELD}))
def test_what_needs_the_host_or_the_text_has_no_graphs(method: str) -> None:
    assert _graphs(method=method, tokens=16) is None


@pytest.mark.parametrize("settings", [{"rate": 0.0}, {"request_tokens": 100}])
def test_settings_without_one_budget_have_no_graphs(settings: dict[str, Any]) -> None:
    assert _graphs(**settings) is None


def test_a_graph_that_missed_work_is_not_used_and_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not read its buffers keeps what it kept when it was recorded."""
    monkeypatch.setattr(selection_graphs.logger.parent, "propagate", True)
    assert _graphs(lambda choose: ((lambda: None), choose()), tokens=10) is None
    assert f"{DEFAULT_METHOD!r} for 1 images keeps other tokens than the method" in caplog.text


def test_without_cuda_selection_is_eager_and_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection_graphs.logger.parent, "propagate", True)
    assert _graphs(selection_graphs.CudaRecorder(), tokens=10) is None
    assert "selection is served without CUDA graphs" in caplog.text


def test_the_host_is_seen_where_it_is_met() -> None:
    with HostFree(), pytest.raises(RuntimeError, match="_local_scalar_dense"):
        torch.ones(1).item()
    with HostFree(), pytest.raises(RuntimeError, match="lift_fresh"):
        torch.tensor([1])
