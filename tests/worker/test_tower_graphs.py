"""The tower as vLLM's manager of CUDA graphs runs it: the manager is vLLM's own, the model a real
one; a graph is its forward, run again on the buffers that it was captured with.

That is all that a CPU lacks of it: what is copied into which buffer, padded, run and handed out is
the same here.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pruned_model import pruned_model
from replayed_tower import CPU, Again, captured, replayed_rows
from vllm.model_executor.models.interfaces import supports_encoder_cudagraph
from vllm.v1.worker.encoder_cudagraph import EncoderCudaGraphManager

from vllm_pruner import methods
from vllm_pruner.methods.base import TOWER, Need
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.tower import FEATURES, EncoderImage
from vllm_pruner.worker.host_free import HostFree
from vllm_pruner.worker.tower_graphs import IMAGES
from vllm_pruner.worker.warm_up import warm_up

pytestmark = pytest.mark.slow

Rows = dict[str, torch.Tensor]


def _made(checkpoint: str, settings: dict[str, Any], tokens: int = 9216, **flags: Any) -> Any:
    return pruned_model(
        checkpoint, settings, dtype="float32", max_num_batched_tokens=tokens, **flags
    )


CHECKPOINTS = ["demo-next", "demo-onevision"]  # small crops; of CLIP and of SigLIP
TILES = ["demo-internvl", "demo-idefics3", "demo-gemma3"]  # with a class token and without
LARGE = pytest.param("demo-siglip", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=[*CHECKPOINTS, LARGE])
def made(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A pruned model and vLLM's manager of it."""
    settings = {} if request.param == "demo-onevision" else {"method": "cdpruner"}
    tokens = 4096 if request.param == "demo-siglip" else 9216  # at most five crops of its 729
    with _made(request.param, settings, tokens) as (config, model):
        yield SimpleNamespace(
            config=config,
            model=model,
            manager=captured(config, model),
            checkpoint=request.param,
        )


def drawn(model: Any, crops: list[int], seed: int = 0) -> list[EncoderImage]:
    """Images of so many crops, all different."""
    draw = torch.Generator().manual_seed(seed)
    size = model.config.vision_config.image_size
    sides = (size, size) if isinstance(size, int) else size
    shape = lambda number: (number, 3, *sides)  # noqa: E731
    return [
        EncoderImage(
            torch.randn(shape(number), generator=draw),
            SimpleNamespace(encoded=number * model.tower.page),  # type: ignore[arg-type]
        )
        for number in crops
    ]


def alone(model: Any, image: EncoderImage, needs: frozenset[Need]) -> Rows:
    rows: Rows = model.tower.encode([image], needs)
    return rows


def assert_rows(found: Rows, expected: list[Rows]) -> None:
    """A batch of another size sums in another order: close, not equal."""
    for name in expected[0]:
        rows = torch.cat([each[name] for each in expected])
        assert found[name].dtype == rows.dtype
        torch.testing.assert_close(found[name], rows, rtol=2e-5, atol=2e-5)


def assert_equal_rows(found: Rows, expected: Rows) -> None:
    assert {*found} == {*expected}
    for name, rows in found.items():
        assert torch.equal(rows, expected[name]), name


def test_runners_make_graphs_of_it_and_replay_none_themselves(made: Any) -> None:
    assert supports_encoder_cudagraph(made.model)
    assert not made.manager.supports_modality("image")
    assert made.manager.is_captured()


def test_what_is_captured_is_up_to_sixteen_crops_and_within_the_memory_profile(made: Any) -> None:
    page = made.model.tower.page
    crops = [budget // page for budget in made.manager.token_budgets]
    assert crops == [n for n in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16) if n <= crops[-1]]
    assert crops[-1] * page <= max(page, made.model._rows_at_once)


@pytest.mark.parametrize("number", [1, 2, 3, 7, 9, 16, 17])
def test_each_number_of_images_gets_its_own_rows_from_the_graphs(made: Any, number: int) -> None:
    images = drawn(made.model, [1] * number)
    hits = made.manager.graph_hits
    rows = made.model._graphs.encode(images)
    assert made.manager.graph_hits == hits + number, "all of them by graphs"
    needs = made.model._graphs.needs
    assert set(rows) == {FEATURES, *needs}
    assert_rows(rows, [alone(made.model, image, needs) for image in images])


def test_what_the_last_replay_left_in_a_buffer_is_in_no_row_of_the_next(made: Any) -> None:
    first = made.model._graphs.encode(drawn(made.model, [1] * 4))
    kept = {name: rows.clone() for name, rows in first.items()}
    made.model._graphs.encode(drawn(made.model, [1] * 4, seed=1))
    for name, rows in kept.items():
        assert torch.equal(first[name], rows), "rows are the caller's own"
    lone = drawn(made.model, [1] * 3, seed=2)
    again = made.model._graphs.encode(lone)  # in the graph of four or of three
    fresh = [alone(made.model, image, made.model._graphs.needs) for image in lone]
    assert_rows(again, fresh)


def test_images_of_several_crops_are_packed_by_size_and_come_back_in_order(made: Any) -> None:
    most = made.manager.token_budgets[-1] // made.model.tower.page
    crops = [min(each, most) for each in (3, 1, 5, 2, 4, 1, 5, 3)]
    images = drawn(made.model, crops)
    rows = made.model._graphs.encode(images)
    needs = made.model._graphs.needs
    assert_rows(rows, [alone(made.model, image, needs) for image in images])


def test_an_image_larger_than_every_graph_runs_eagerly(made: Any) -> None:
    most = made.manager.token_budgets[-1] // made.model.tower.page
    images = drawn(made.model, [1, most + 1])
    misses = made.manager.graph_misses
    rows = made.model._graphs.encode(images)
    assert made.manager.graph_misses == misses + 1
    needs = made.model._graphs.needs
    assert_rows(rows, [alone(made.model, image, needs) for image in images])


def test_of_one_size_the_graphs_change_no_bit(made: Any) -> None:
    for budget in made.manager.token_budgets:
        images = drawn(made.model, [1] * (budget // made.model.tower.page))
        eager = made.model.tower.encode(images, made.model._graphs.needs)
        assert_equal_rows(made.model._graphs.encode(images), eager)


def assert_meets_no_host(made: Any) -> None:
    values = made.model.prepare_encoder_cudagraph_capture_inputs(
        made.manager.token_budgets[-1], made.manager.max_batch_size, 0, CPU, torch.float32
    ).values
    with HostFree(), torch.inference_mode():
        made.model.encoder_cudagraph_forward(values)


def test_a_captured_forward_never_meets_the_host(made: Any) -> None:
    assert_meets_no_host(made)


@pytest.fixture(scope="module", params=TILES)
def tiled(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The same of a model whose patches become tokens by pixel shuffle, its graphs few."""
    budgets = [
        number * {"demo-internvl": 36, "demo-idefics3": 16, "demo-gemma3": 64}[request.param]
        for number in (1, 3, 5)
    ]
    flags = {"compilation_config": {"encoder_cudagraph_token_budgets": budgets}}
    with pruned_model(request.param, {}, dtype="float32", **flags) as (config, model):
        yield SimpleNamespace(config=config, model=model, manager=captured(config, model))


def test_tiles_get_their_own_rows_from_the_graphs_and_the_rest_eagerly(tiled: Any) -> None:
    graphs, needs = tiled.model._graphs, tiled.model._graphs.needs
    graphs.encode(drawn(tiled.model, [5], seed=1))
    images = drawn(tiled.model, [2, 1, 3, 1, 6, 4])
    rows = graphs.encode(images)
    assert (tiled.manager.graph_hits, tiled.manager.graph_misses) == (6, 1)
    assert_rows(rows, [alone(tiled.model, image, needs) for image in images])
    (three,) = drawn(tiled.model, [3], seed=2)
    assert_equal_rows(graphs.encode([three]), alone(tiled.model, three, needs))


def test_tiles_that_are_captured_never_meet_the_host(tiled: Any) -> None:
    assert not tiled.manager.supports_modality("image")
    assert_meets_no_host(tiled)


# ---------------------------------------------------------------- through the model


def embedded(model: Any, pixels: torch.Tensor, settings: dict[str, Any], names: list[str]) -> Any:
    """What the model gives the decoder for one crop an image."""
    plans = [ImagePlan(PruneConfig(**settings), name) for name in names]
    parsed = model._parse_and_validate_image_input
    assert parsed is not None
    return model.embed_planned(plans, pixel_values=pixels)


@pytest.fixture(scope="module")
def llava() -> Iterator[Any]:
    """LLaVA with graphs that can be taken away, of one crop and of two."""
    flags = {"compilation_config": {"encoder_cudagraph_token_budgets": [576, 1152]}}
    with _made("demo", {"feature_cache_mb": 8}, **flags) as (config, model):
        yield SimpleNamespace(config=config, model=model, manager=captured(config, model))


@pytest.mark.parametrize("crops", [1, 3, 6, 7])
def test_unpruned_images_get_stock_vllms_rows_from_a_graph_that_they_fill(
    made: Any, crops: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, page = made.model, made.model.tower.page
    size = model.config.vision_config.image_size
    draw = torch.Generator().manual_seed(crops)
    pixels = torch.randn(1, crops, 3, size, size, generator=draw)
    if made.checkpoint == "demo-siglip":
        kwargs = {"pixel_values": pixels[0]}
    else:
        kwargs = {"pixel_values": pixels, "image_sizes": torch.tensor([[size, size * (crops - 1)]])}
    replays = replayed_rows(monkeypatch, model, made.manager)
    captured_rows = model.embed_multimodal(**kwargs)
    assert replays == ([crops * page] if crops * page in made.manager.token_budgets else [])
    model.graphs_cleared(made.manager)
    stock = model.embed_multimodal(**kwargs)
    model.graphs_captured(made.manager, 0.0, 0)
    for one, other in zip(captured_rows, stock, strict=True):
        assert torch.equal(one, other)


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


def _pixels(number: int, seed: int) -> torch.Tensor:
    return torch.randn(number, 3, 336, 336, generator=torch.Generator().manual_seed(seed))


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
    assert not needs <= llava.model._graphs.needs
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


def test_the_warm_up_launches_every_method_on_a_real_tower(made: Any) -> None:
    """What it compiles is counted in `test_warm_up.py`; here everything it calls exists."""
    chosen = [name for name in methods.built_in() if methods.get(name).shrink is None]
    warm_up(made.model.tower, drawn(made.model, [1]), chosen, 40, of_one_size=True)


def test_items_are_images(llava: Any) -> None:
    images = drawn(llava.model, [2, 1])
    specs = llava.model.get_encoder_cudagraph_item_specs({IMAGES: images})
    page = llava.model.tower.page
    assert [spec.output_tokens for spec in specs] == [2 * page, page]
    assert llava.model.select_encoder_cudagraph_items({IMAGES: images}, [1]) == {
        IMAGES: [images[1]]
    }
