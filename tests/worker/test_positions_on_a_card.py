"""Positions of kept tokens, corrected as both of vLLM's runners for GPUs ask for it: V1 keeps
prompt and positions on the host, V2 on the card."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from clip_prompt import clip_prompt
from model_on_card import embedded, model_on_card
from pretend_tensor import CARD, OnCard, host
from pruned_model import pruned_model
from vllm.multimodal.inputs import MultiModalFeatureSpec

from vllm_pruner.methods.on_device import sent

pytestmark = pytest.mark.slow

HOOK = "vllm_pruner.worker.mrope:MRopeModel"

CHECKPOINTS = ["demo-qwen2.5", "demo-qwen3", "demo-glm4v"]

PICTURE, CLIP = (168, 224), (4, 112, 112)

CASES: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "a picture": ([PICTURE], {}),
    "whole": ([PICTURE, CLIP], {"rate": 0.0}),
    "frames as one": ([PICTURE, CLIP], {"video_method": "evs"}),
    "frames apart": ([CLIP, PICTURE], {"video_method": "scope", "rate": 0.7}),
}
"""Pictures and videos of a prompt, and its settings."""


def _features(output: Any) -> list[MultiModalFeatureSpec]:
    """What a runner knows of a prompt's pictures and videos, in their order."""
    made = [
        MultiModalFeatureSpec(item, kind, f"{kind} {number}", place)
        for kind, places in output["mm_placeholders"].items()
        for number, (item, place) in enumerate(zip(output["mm_kwargs"][kind], places, strict=True))
    ]
    return sorted(made, key=lambda each: each.mm_position.offset)


def _corrected(model: Any, rows: Any, ids: Any, before: torch.Tensor) -> Any:
    with torch.inference_mode():
        return model.recompute_mrope_positions(ids, rows, before, 0)


@pytest.fixture(scope="module", params=CHECKPOINTS)
def made(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    """A card with a model, and by case the prompt, its positions and what a CPU makes of it."""
    with pruned_model(request.param, {}, dtype="float32") as (config, model):
        cases = {}
        for name, (media, settings) in CASES.items():
            output = clip_prompt(config, media, (len(cases),), settings)
            tokens, features = output["prompt_token_ids"], _features(output)
            positions, _ = model.get_mrope_input_positions(tokens, features)
            items = [each.data for each in features]
            rows = embedded(model, items, device=None)
            expected = _corrected(model, rows, tokens, positions.clone())
            assert torch.equal(expected[1], positions) == (settings == {"rate": 0.0})
            cases[name] = items, tokens, positions, expected
        with model_on_card(config, model) as card:
            model._warm_up._is_cold = False
            yield card, model, cases


@pytest.mark.parametrize("case", CASES)
def test_positions_are_those_of_a_cpu(made: Any, case: str) -> None:
    card, model, cases = made
    items, tokens, positions, (rows, after, delta) = cases[case]
    given = embedded(model, items)
    card.waits.clear()
    found = _corrected(model, given, tokens, positions.clone())
    assert card.waits == [f"a copy to the host in {HOOK}.recompute_mrope_positions"]
    card.waits.clear()
    ids = sent(torch.tensor(tokens, dtype=torch.int32), CARD)
    on_card = _corrected(model, given, ids, sent(positions, CARD))
    assert card.waits == [
        f"a copy to the host in {HOOK}.recompute_mrope_positions",
        f"a copy to the host in {HOOK}.recompute_mrope_positions",
        f"item in {HOOK}.delta",
    ]
    card.waits.clear()
    assert isinstance(on_card[1], OnCard)
    for cleaned, written, offset in (found, on_card):
        assert torch.equal(host(written), after) and offset == delta
        for one, other in zip(cleaned, rows, strict=True):
            assert torch.equal(host(one), other)
