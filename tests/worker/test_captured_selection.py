"""Real models whose selection is in graphs give the decoder the rows that they give it without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from PIL import Image
from pruned_model import pruned_model
from replayed import again, replays_of
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.worker.selection_graphs import selection_graphs

pytestmark = pytest.mark.slow

SIZES = [(336, 336), (500, 336), (120, 660), (660, 660), (500, 336), (64, 90)]
"""Widths and heights: of several crops or grids, one of them twice."""


@pytest.fixture(
    scope="module",
    params=[
        ("demo-next", {}),
        ("demo-next", {"method": "vispruner", "tokens": 20}),
        ("demo-next", {"method": "adafv"}),
        ("demo-onevision", {"method": "vispruner"}),
        ("demo-qwen3", {}),
    ],
    ids=["crops", "newlines", "question", "some interpolated", "grids"],
)
def made(request: pytest.FixtureRequest) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A pruned model with its selection in graphs, and pictures as HF's processor makes them. Of 20
    tokens of LLaVA-NeXT half may be newlines."""
    flags = {"dtype": "float32", "max_num_batched_tokens": 9216}
    checkpoint, settings = request.param
    with pruned_model(checkpoint, {**settings, "feature_cache_mb": 0}, **flags) as (config, model):
        info = MULTIMODAL_REGISTRY.get_processing_info(config.model_config)
        draw = torch.Generator().manual_seed(0)
        pictures = [
            Image.fromarray(
                torch.randint(256, (high, wide, 3), dtype=torch.uint8, generator=draw).numpy()
            )
            for wide, high in SIZES
        ]
        fields = info.get_hf_processor().image_processor(pictures, return_tensors="pt")
        model._selector.graphs = selection_graphs(
            model._server_config.of_image(),
            model._largest,
            model.tower,
            of_one_size=model.family.one_layout,
            record=again,
        )
        assert model._selector.graphs is not None
        yield model, dict(fields)


def _rows(model: Any, fields: dict[str, Any], settings: list[dict[str, Any]]) -> list[torch.Tensor]:
    plans = [
        ImagePlan(PruneConfig(**each), str(place), tuple(range(7, 7 + place)))
        for place, each in enumerate(settings)
    ]
    return [*model.embed_planned(plans, **fields)]


def test_the_decoder_gets_the_same_rows(made: tuple[Any, dict[str, Any]]) -> None:
    """Two of the pictures keep more than the server's rate says."""
    model, fields = made
    server = model._server_config.of_image()
    own = server.model_dump(include={"method", "rate", "tokens"}, exclude_none=True)
    more = (
        {**own, "tokens": 36} if server.rate is None else {**own, "rate": 1.8 * server.rate - 0.8}
    )
    settings = [own, own, more, own, own, more]
    replays = replays_of(model._selector.graphs)
    captured = _rows(model, fields, settings)
    assert sum(shape.images for shape in replays) >= len(SIZES), "all of them by graphs"
    model._selector.graphs = None
    for one, other in zip(captured, _rows(model, fields, settings), strict=True):
        assert torch.equal(one, other)
