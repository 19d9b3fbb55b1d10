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
from graph_rows import alone, assert_equal_rows, assert_meets_no_host, assert_rows, drawn
from pruned_model import pruned_model
from replayed_tower import CPU, captured, replayed_rows
from vllm.model_executor.models.interfaces import supports_encoder_cudagraph
from vllm.v1.worker.encoder_cudagraph import EncoderCudaGraphManager

from vllm_pruner import methods
from vllm_pruner.tower import FEATURES
from vllm_pruner.worker.warm_up import warm_up

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["demo-next", "demo-onevision", "demo-siglip"])
def made(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A pruned model and vLLM's manager of it."""
    settings = {} if request.param == "demo-onevision" else {"method": "cdpruner"}
    tokens = 4096 if request.param == "demo-siglip" else 9216  # at most five crops of its 729
    flags: dict[str, Any] = {"dtype": "float32", "max_num_batched_tokens": tokens}
    with pruned_model(request.param, settings, **flags) as (config, model):
        yield SimpleNamespace(
            config=config,
            model=model,
            manager=captured(config, model),
            checkpoint=request.param,
        )


def test_runners_make_graphs_of_it_and_replay_none_themselves(made: Any) -> None:
    assert supports_encoder_cudagraph(made.model)
    assert not made.manager.supports_modality("image")
    assert made.manager.is_captured()


def test_what_is_captured_is_up_to_sixteen_crops_and_within_the_memory_profile(made: Any) -> None:
    page = made.model.tower.page
    crops = [budget // page for budget in made.manager.token_budgets]
    assert crops == [n for n in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16) if n <= crops[-1]]
    assert crops[-1] * page <= max(page, made.model._rows_at_once)


@pytest.mark.parametrize("items", [300, 1000])
def test_sizes_below_the_operators_number_of_items_are_left_out(items: int) -> None:
    """As vLLM leaves out its own; it does not start with one that was given."""
    flags = {"encoder_cudagraph_max_vision_items_per_batch": items}
    with pruned_model("demo-next", {}, compilation_config=flags) as (config, model):
        manager = EncoderCudaGraphManager(config, CPU, config.model_config.dtype, model)
        ours = [n * model.tower.page for n in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)]
        named = config.compilation_config.encoder_cudagraph_token_budgets
        assert named == [budget for budget in ours if budget >= items and budget in named]
        assert min(manager.token_budgets) >= manager.max_batch_size == items


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


def test_a_captured_forward_never_meets_the_host(made: Any) -> None:
    assert_meets_no_host(made)


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


def test_the_warm_up_launches_every_method_on_a_real_tower(made: Any) -> None:
    """What it compiles is counted in `test_warm_up.py`; here everything it calls exists."""
    served = made.model.family.serves
    chosen = [each for each in methods.built_in() if methods.get(each).shrink is None]
    chosen = [each for each in chosen if served(made.model.config, methods.get(each))]
    warm_up(made.model.tower, drawn(made.model, [1]), chosen, 40, of_one_size=True)
