"""Towers whose patches become tokens by pixel shuffle or pooling, as vLLM's manager of CUDA graphs
runs them; see `test_tower_graphs`."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from any_rows import multiply_any_rows
from graph_rows import alone, assert_equal_rows, assert_meets_no_host, assert_rows, drawn
from nightly import NIGHTLY
from pruned_model import pruned_model
from replayed_tower import captured

pytestmark = pytest.mark.slow

multiply_any_rows()

TILE_TOKENS = {"demo-internvl": 36, "demo-idefics3": 16, "demo-gemma3": 64, "demo-llama4": 16}
"""Towers with a class token and without."""


CHECKPOINTS = [
    pytest.param(each, marks=NIGHTLY if each == "demo-llama4" else ()) for each in TILE_TOKENS
]


@pytest.fixture(scope="module", params=CHECKPOINTS)
def tiled(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A pruned model and vLLM's manager of it, its graphs few."""
    budgets = [number * TILE_TOKENS[request.param] for number in (1, 3, 5)]
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
