"""The server's own selection in graphs: what they hold, and that they keep what it keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from replayed import again, replays_of
from torch import nn

from vllm_pruner import methods
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.methods.base import TOWER, Kept, Need, VisualTokens
from vllm_pruner.methods.texts import Texts
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.defaults import DEFAULT_METHOD
from vllm_pruner.tower import FEATURES
from vllm_pruner.worker import selection_graphs
from vllm_pruner.worker.recorder import CudaRecorder, HostFree, Recorded
from vllm_pruner.worker.selection_graphs import SelectionGraphs
from vllm_pruner.worker.selection_shapes import EXACT_IMAGES, MOST_WORDS, RAGGED_IMAGES

LAYOUT = GridLayout(6, 8)
WIDTHS = {FEATURES: 16, "importance": 0, "keys": 8, "received": 0, "received_midway": 0}

HELD = ["adafv", "adafv-ref", "attention", "cdpruner", "divprune", "prumerge+", "random", "scope"]
HELD += ["triad", "uniform", "vispruner", "visionzip"]
"""The methods that do not meet the host."""

RAGGED = [name for name in HELD if methods.get(name).ragged]


class _Tower:
    """The columns that a tower has, without one: nothing here encodes."""

    module, own_width = nn.Linear(16, 16), None

    def columns(self, needs: Any) -> dict[str, Any]:
        return {name: (WIDTHS[name], torch.float32) for name in (FEATURES, *needs)}

    def project(self, features: torch.Tensor) -> torch.Tensor:
        return features * 2


def _graphs(
    record: Callable[..., Recorded] = again,
    layout: GridLayout = LAYOUT,
    of_one_size: bool = True,
    **settings: Any,
) -> SelectionGraphs | None:
    return selection_graphs.selection_graphs(
        PruneConfig(**settings),
        layout,
        _Tower(),  # type: ignore[arg-type]
        of_one_size=of_one_size,
        record=record,
    )


def _tokens(method: str, images: int, number: int = LAYOUT.tokens, seed: int = 0) -> VisualTokens:
    draw = torch.Generator().manual_seed(seed)
    needs = methods.get(method).needs
    columns = {
        name: torch.rand((images, number, width)[: 3 if width else 2], generator=draw)
        for name, width in WIDTHS.items()
        if name == FEATURES or name in needs & TOWER
    }
    projected = columns[FEATURES] * 2 if Need.PROJECTED in needs else None
    text = None
    if projected is not None and Need.TEXT in needs:
        words = [(seed + image) * 3 % 8 for image in range(images)]  # of some images none
        text = Texts.cut(torch.rand(sum(words), 16, generator=draw), words)
    grid = LAYOUT.whole_grid if number == LAYOUT.tokens else None
    return VisualTokens(**columns, projected=projected, text=text, grid=grid)


def _assert_alike(found: Kept, expected: Kept) -> None:
    assert torch.equal(found.index, expected.index)
    assert (found.rows is None) == (expected.rows is None)
    if found.rows is not None and expected.rows is not None:
        assert torch.equal(found.rows, expected.rows)


@pytest.mark.parametrize("method", HELD)
def test_every_number_of_images_keeps_what_the_method_keeps(method: str) -> None:
    chosen, options = PruneConfig(method=method, tokens=10).resolved
    graphs = _graphs(method=method, tokens=10)
    assert graphs is not None
    replays = replays_of(graphs)
    for images in range(1, EXACT_IMAGES[-1] + 1):
        tokens = _tokens(method, images, seed=images)
        found = graphs.choose(chosen, tokens, 10, options)
        _assert_alike(found, chosen.choose(tokens, 10, options))
    assert [shape.images for shape in replays] == [1, 2, 3, 4, 6, 6, 8, 8]


@pytest.mark.parametrize("method", RAGGED)
def test_images_of_any_size_keep_what_the_method_keeps(method: str) -> None:
    """Each graph holds smaller images too, and those that keep more than the rate says."""
    config = PruneConfig(method=method, rate=0.75)
    chosen, options = config.resolved
    graphs = _graphs(layout=GridLayout(8, 10), of_one_size=False, method=method, rate=0.75)
    assert graphs is not None
    replays, asked = replays_of(graphs), 0
    for images, number, more in [(1, 80, 0), (3, 71, 0), (8, 80, 9), (2, 33, 8), (1, 64, 30)]:
        tokens = _tokens(method, images, number, seed=number)
        keep, asked = config.keep_count(number) + more, asked + 1
        found = graphs.choose(chosen, tokens, keep, options)
        _assert_alike(found, chosen.choose(tokens, keep, options))
        assert len(replays) == asked, (images, number, keep)


@pytest.mark.parametrize("method", RAGGED)
def test_with_one_size_images_that_keep_more_are_held_too(method: str) -> None:
    chosen, options = PruneConfig(method=method, tokens=10).resolved
    graphs = _graphs(method=method, tokens=10)
    assert graphs is not None
    replays = replays_of(graphs)
    for keep in (5, 11, 20, 21, 40):
        tokens = _tokens(method, 2, seed=keep)
        _assert_alike(
            graphs.choose(chosen, tokens, keep, options), chosen.choose(tokens, keep, options)
        )
    assert [shape.keep for shape in replays] == [10, 20, 20, 40, 40]


def test_what_was_kept_outlives_the_next_replay() -> None:
    graphs, config = _graphs(tokens=10), PruneConfig(tokens=10)
    assert graphs is not None
    method, options = config.resolved
    first = graphs.choose(method, _tokens(DEFAULT_METHOD, 2), 10, options)
    copy = first.index.clone()
    graphs.choose(method, _tokens(DEFAULT_METHOD, 2, seed=1), 10, options)
    assert torch.equal(first.index, copy)


@pytest.mark.parametrize(
    ("settings", "images"),
    [
        ({"method": "attention", "tokens": 10}, 1),
        ({"tokens": 10, "options": {"alpha": 0.5}}, 1),
        ({"tokens": 4}, 1),  # fewer than half of the server's own, and more than four times
        ({"tokens": 41}, 1),
        ({"tokens": 10}, EXACT_IMAGES[-1] + 1),
        ({"tokens": 11}, RAGGED_IMAGES[-1] + 1),
    ],
)
def test_another_selection_than_the_servers_own_runs_eagerly(
    settings: dict[str, Any], images: int
) -> None:
    graphs, config = _graphs(tokens=10), PruneConfig(**settings)
    assert graphs is not None
    replays, (method, options) = replays_of(graphs), config.resolved
    keep = config.keep_count(LAYOUT.tokens)
    tokens = _tokens(method.name, images)
    found = graphs.choose(method, tokens, keep, options)
    _assert_alike(found, method.choose(tokens, keep, options))
    assert not replays


def test_a_long_text_is_read_eagerly() -> None:
    graphs, config = _graphs(method="adafv", tokens=10), PruneConfig(method="adafv", tokens=10)
    assert graphs is not None
    replays, (method, options) = replays_of(graphs), config.resolved
    for words in (MOST_WORDS, MOST_WORDS + 1):
        draw = torch.Generator().manual_seed(words)
        text = Texts.cut(torch.rand(words, 16, generator=draw), [words])
        tokens = replace(_tokens("adafv", 1), text=text)
        found = graphs.choose(method, tokens, 10, options)
        _assert_alike(found, method.choose(tokens, 10, options))
    assert len(replays) == 1


def test_the_default_is_held() -> None:
    assert DEFAULT_METHOD in RAGGED


@pytest.mark.parametrize("method", sorted({*methods.built_in()} - {*HELD}))
def test_what_needs_the_host_has_no_graphs(method: str) -> None:
    assert _graphs(method=method, tokens=16) is None


@pytest.mark.parametrize("method", sorted({*HELD} - {*RAGGED}))
def test_only_one_size_is_held_of_a_method_that_takes_no_other(method: str) -> None:
    assert _graphs(method=method, tokens=16, of_one_size=False) is None


@pytest.mark.parametrize("settings", [{"rate": 0.0}, {"request_tokens": 100}])
def test_settings_without_one_budget_have_no_graphs(settings: dict[str, Any]) -> None:
    assert _graphs(**settings) is None


@pytest.mark.parametrize("of_one_size", [True, False])
def test_a_graph_that_missed_work_is_not_used_and_said(
    of_one_size: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not read its buffers keeps what it kept when it was recorded."""
    monkeypatch.setattr(selection_graphs.logger.parent, "propagate", True)
    missing = _graphs(lambda choose: ((lambda: None), choose()), of_one_size=of_one_size, tokens=10)
    assert missing is None
    assert f"{DEFAULT_METHOD!r} for 1 images" in caplog.text
    assert "keeps other tokens than the method" in caplog.text


def test_a_graph_that_missed_lengths_and_budgets_is_not_used(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that reads the tokens, but keeps the numbers that it was recorded with."""
    monkeypatch.setattr(selection_graphs.logger.parent, "propagate", True)

    def record(choose: Callable[[], Kept]) -> Recorded:
        replay, kept = again(choose)
        (tokens,) = (
            cell.cell_contents
            for cell in choose.__closure__ or ()
            if isinstance(cell.cell_contents, VisualTokens)
        )
        assert tokens.ragged is not None
        sizes = tokens.ragged.lengths.clone(), tokens.ragged.keeps.clone()

        def stale() -> None:
            tokens.ragged.lengths.copy_(sizes[0])
            tokens.ragged.keeps.copy_(sizes[1])
            replay()

        return stale, kept

    assert _graphs(record, of_one_size=False, tokens=10) is None
    assert "keeps other tokens than the method" in caplog.text


def test_without_cuda_selection_is_eager_and_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection_graphs.logger.parent, "propagate", True)
    assert _graphs(CudaRecorder(), tokens=10) is None
    assert "selection is served without CUDA graphs" in caplog.text


def test_the_host_is_seen_where_it_is_met() -> None:
    with HostFree(), pytest.raises(RuntimeError, match="_local_scalar_dense"):
        torch.ones(1).item()
    with HostFree(), pytest.raises(RuntimeError, match="lift_fresh"):
        torch.tensor([1])
