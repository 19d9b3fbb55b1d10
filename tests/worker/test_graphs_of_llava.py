"""With LLaVA's tower in graphs the decoder gets what it gets without them, and no graph runs where
that could not be. How graphs run is in `test_tower_graphs`."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from graph_rows import drawn
from pruned_model import pruned_model
from replayed_tower import CPU, Again, captured, replayed_rows
from vllm.v1.worker.encoder_cudagraph import EncoderCudaGraphManager

from vllm_pruner.methods.base import TOWER, Need
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.worker.tower_graphs import IMAGES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def llava() -> Iterator[Any]:
    """LLaVA with graphs that can be taken away, of one crop and of two."""
    flags = {
        "dtype": "float32",
        "max_num_batched_tokens": 9216,
        "compilation_config": {"encoder_cudagraph_token_budgets": [576, 1152]},
    }
    with pruned_model("demo", {"feature_cache_mb": 8}, **flags) as (config, model):
        yield SimpleNamespace(config=config, model=model, manager=captured(config, model))


def embedded(model: Any, pixels: torch.Tensor, settings: dict[str, Any], names: list[str]) -> Any:
    """What the model gives the decoder for one crop an image."""
    plans = [ImagePlan(PruneConfig(**settings), name) for name in names]
    return model.embed_planned(plans, pixel_values=pixels)


def _pixels(number: int, seed: int) -> torch.Tensor:
    return torch.randn(number, 3, 336, 336, generator=torch.Generator().manual_seed(seed))


def test_a_graph_that_changes_bits_is_not_for_unpruned_images(
    llava: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = Again.replay

    def rounded(graph: Again) -> None:
        replay(graph)
        assert graph.output is not None
        graph.output.mul_(1 + 1e-6)

    monkeypatch.setattr(Again, "replay", rounded)
    manager = captured(llava.config, llava.model)
    replays = replayed_rows(monkeypatch, llava.model, manager)
    assert manager.is_captured() and llava.model._graphs.ready
    llava.model.embed_multimodal(pixel_values=_pixels(1, seed=8))
    assert not replays
    embedded(llava.model, _pixels(1, seed=8), {}, ["pruned"])
    assert replays
    monkeypatch.undo()
    llava.model.graphs_captured(llava.manager, 0.0, 0)


@pytest.mark.parametrize("method", ["vispruner", "attention", "divprune", "pool", "visionzip"])
def test_a_pruned_image_is_the_same_with_and_without_graphs(llava: Any, method: str) -> None:
    """As many images as a graph has crops, so that no sum is in another order."""
    model, settings, pixels = llava.model, {"method": method}, _pixels(2, seed=3)
    model._encoder.cache.clear()
    with_graphs = embedded(model, pixels, settings, list("ab"))
    model.graphs_cleared(llava.manager)
    model._encoder.cache.clear()
    without = embedded(model, pixels, settings, list("ab"))
    model.graphs_captured(llava.manager, 0.0, 0)
    for one, other in zip(with_graphs, without, strict=True):
        assert torch.equal(one, other)


def test_the_cache_is_asked_before_the_graphs(llava: Any) -> None:
    model, pixels = llava.model, _pixels(4, seed=4)
    embedded(model, pixels, {}, list("efgh"))
    hits = llava.manager.graph_hits
    embedded(model, pixels, {"rate": 0.5}, list("efgh"))
    assert llava.manager.graph_hits == hits, "a known image"
    embedded(model, pixels, {"rate": 0.5}, ["e", "new", "g", "h"])
    assert llava.manager.graph_hits == hits + 1, "only the one that is not"


def test_a_method_that_looks_at_more_than_was_captured_runs_eagerly(llava: Any) -> None:
    needs = frozenset({Need.RECEIVED}) & TOWER
    assert llava.model._graphs.ready and not needs <= llava.model._graphs.needs
    hits = llava.manager.graph_hits
    embedded(llava.model, _pixels(1, seed=5), {"method": "hiprune"}, ["more"])
    assert llava.manager.graph_hits == hits


def test_a_manager_that_was_cleared_is_not_replayed(llava: Any) -> None:
    profiled = captured(llava.config, llava.model)
    assert llava.model._graphs.ready
    profiled.clear()
    assert not llava.model._graphs.ready
    hits = profiled.graph_hits
    assert len(embedded(llava.model, _pixels(1, seed=6), {}, ["later"])) == 1
    assert profiled.graph_hits == hits
    llava.model.graphs_captured(llava.manager, 0.0, 0)


def test_what_cannot_be_captured_is_served_without_and_said(
    llava: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here there is no CUDA to capture with, so vLLM's own capture fails."""
    from vllm_pruner import plugin

    monkeypatch.setattr(plugin.logger.parent, "propagate", True)
    manager = EncoderCudaGraphManager(llava.config, CPU, torch.float32, llava.model)
    manager.capture(graph_pool=object())
    assert "is served without CUDA graphs" in caplog.text
    assert not manager.is_captured()
    assert len(embedded(llava.model, _pixels(1, seed=7), {}, ["eager"])) == 1


def test_a_graph_with_other_rows_than_the_tower_is_not_replayed(
    llava: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was captured without reading its buffer gives the rows of whatever lay there."""
    from vllm_pruner import plugin

    monkeypatch.setattr(plugin.logger.parent, "propagate", True)
    monkeypatch.setattr(Again, "replay", lambda graph: graph.output.fill_(1.0))
    manager = captured(llava.config, llava.model)
    assert "has other features than the tower" in caplog.text
    assert "is served without CUDA graphs" in caplog.text
    assert not manager.is_captured()
    llava.model._graphs.detach(llava.manager)
    assert not llava.model._graphs.ready


def test_items_are_images(llava: Any) -> None:
    images = drawn(llava.model, [2, 1])
    specs = llava.model.get_encoder_cudagraph_item_specs({IMAGES: images})
    page = llava.model.tower.page
    assert [spec.output_tokens for spec in specs] == [2 * page, page]
    assert llava.model.select_encoder_cudagraph_items({IMAGES: images}, [1]) == {
        IMAGES: [images[1]]
    }
