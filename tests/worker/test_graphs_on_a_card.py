"""Selection and towers in CUDA graphs, captured as a server captures them, on a GPU that is not
there: graphs that hold only what ran on the device give the rows that they give without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from graph_rows import drawn
from model_on_card import as_sent, embedded, model_on_card
from pretend_cuda import pretend_gpu
from pretend_tensor import CARD, host
from pruned_model import picture_items, pruned_model
from vllm.v1.worker.encoder_cudagraph import EncoderCudaGraphManager

from vllm_pruner.methods.base import Kept, Need
from vllm_pruner.settings.keys import PLAN_IMAGE
from vllm_pruner.worker.explain import WORKER_METHODS
from vllm_pruner.worker.recorder import CudaRecorder

pytestmark = pytest.mark.slow

SIZES = [(168, 224), (300, 168)]


def _dummies(items: Sequence[Any]) -> list[Any]:
    """The same pictures as those with which vLLM profiles memory."""
    nobody = torch.empty(0, dtype=torch.uint8)
    return [
        type(item)({**item, PLAN_IMAGE: replace(item[PLAN_IMAGE], data=nobody)}) for item in items
    ]


@pytest.fixture(
    scope="module",
    params=[
        ("demo", {}),
        ("demo", {"method": "adafv"}),
        ("demo-next", {"method": "vispruner"}),
    ],
    ids=str,
)
def started(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A model whose server has started on the card, and what a CPU makes of pictures."""
    checkpoint, settings = request.param
    flags = {
        "dtype": "float32",
        "max_num_batched_tokens": 9216,
        "compilation_config": {"encoder_cudagraph_token_budgets": [576, 1152]},
    }
    with pruned_model(checkpoint, settings, **flags) as (config, model):
        items = picture_items(config, SIZES, (0,), {})
        expected = embedded(model, items, device=None)
        explained = WORKER_METHODS["vtprune_explain"](model, [as_sent(items[0])])
        with model_on_card(config, model) as card:
            embedded(model, _dummies(items))
            card.waits.clear()
            yield SimpleNamespace(**locals())


def test_the_selection_of_a_server_is_captured_and_gives_the_same_rows(started: Any) -> None:
    graphs = started.model._selector.graphs
    assert graphs is not None
    found = embedded(started.model, started.items)
    assert not started.card.waits
    for one, other in zip(found, started.expected, strict=True):
        assert torch.equal(host(one), other)


def test_the_tower_is_captured_beside_it(started: Any) -> None:
    model = started.model
    manager = EncoderCudaGraphManager(started.config, CARD, torch.float32, model)
    with torch.inference_mode():  # as in `EncoderRunner.capture`
        manager.capture(graph_pool=object())
    assert model._graphs.ready and manager.is_captured()
    model._encoder.cache.clear()
    started.card.waits.clear()
    found = embedded(model, started.items)
    assert manager.graph_hits == len(SIZES) and not started.card.waits
    for one, other in zip(found, started.expected, strict=True):
        torch.testing.assert_close(host(one), other, rtol=2e-5, atol=2e-5)
    model.graphs_cleared(manager)


def test_a_selection_is_explained_although_vllm_calls_it_outside_of_inference(started: Any) -> None:
    """`collective_rpc` runs a method of the worker as it is."""
    assert not torch.is_inference_mode_enabled()
    explain = WORKER_METHODS["vtprune_explain"]
    assert explain(started.model, [as_sent(started.items[0])]) == started.explained


def test_scores_behind_a_class_token_begin_where_kernels_are_compiled_for() -> None:
    """Of one crop they could be a view of all scores."""
    with pruned_model("demo", {}, dtype="float32") as (_, model), torch.inference_mode():
        columns = model.tower.encode(drawn(model, [1]), frozenset({Need.RECEIVED}))
    assert columns[Need.RECEIVED].storage_offset() == 0


def test_a_capture_that_fails_leaves_the_stream_that_vllm_waits_for() -> None:
    def chooses_on_the_host() -> Kept:
        return Kept(torch.arange(3, device=CARD).cpu())

    with pretend_gpu(), pytest.raises(RuntimeError, match="capturing"):
        before = torch.cuda.current_stream()
        try:
            CudaRecorder()(chooses_on_the_host)
        finally:
            assert torch.cuda.current_stream() == before
