"""Gemma 4's unpruned images beside pruned ones, from vLLM's own CUDA graphs, which return a row for
every token that the processor pads an image to. The graphs are stand-ins; see `replayed_tower`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pruned_model import picture_batch, pruned_model
from replayed_tower import captured

from vllm_pruner import compat
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not compat.encoder_graphs_known(), reason="another vLLM, 0.31"),
]

SIZES = [(168, 224), (84, 280), (1, 400)]
"""Height and width of three pictures, of 63, 60 and 70 tokens."""

FEW = {
    "encoder_cudagraph_token_budgets": [70, 140],
    "encoder_cudagraph_max_frames_per_batch": 2,  # each of which has room for the largest image
}


@torch.inference_mode()
def test_an_unpruned_image_of_a_batch_has_as_many_rows_as_its_prompt_has_places() -> None:
    flags: dict[str, Any] = {"dtype": "float32", "compilation_config": FEW}
    with pruned_model("demo-gemma4", {}, **flags) as (config, model):
        captured(config, model)
        graphs = model._stock_graphs
        fields = picture_batch(config, SIZES, (0,), {"rate": 0.0})
        stock = model.embed_multimodal(**graphs.some(fields, [0, 2]))
        assert [len(rows) for rows in stock] == [70, 70]
        hits = graphs._manager.graph_hits
        settings = [PruneConfig(rate=0.0), PruneConfig(tokens=5), PruneConfig(rate=0.0)]
        plans = [ImagePlan(each, str(place)).fields() for place, each in enumerate(settings)]
        planned = {name: [each[name] for each in plans] for name in plans[0]}
        rows = model.embed_multimodal(**fields, **planned)
    assert graphs._manager.graph_hits == 2 * hits > 0
    assert [len(each) for each in rows] == [63, 5, 70]
    assert torch.equal(rows[0], stock[0][:63]) and torch.equal(rows[2], stock[1])
