"""Positions of kept tokens, corrected as both of vLLM's runners for GPUs ask for it: V1 keeps
prompt and positions on the host, V2 on the card."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from model_on_card import model_on_card, runner_batches
from PIL import Image
from pretend_gpu import CARD, OnCard, host
from pruned_model import picture_prompt, pruned_model
from vllm.multimodal.inputs import MultiModalFeatureSpec

from vllm_pruner.methods.on_device import sent

pytestmark = pytest.mark.slow

HOOK = "vllm_pruner.worker.mrope:MRopeModel"


@pytest.mark.parametrize("checkpoint", ["demo-qwen2.5", "demo-qwen3", "demo-glm4v"])
@pytest.mark.parametrize("settings", [{}, {"rate": 0.0}], ids=["pruned", "whole"])
def test_positions_are_those_of_a_cpu(checkpoint: str, settings: dict[str, Any]) -> None:
    with pruned_model(checkpoint, {}, dtype="float32") as (config, model):
        pixels = np.random.default_rng(0).integers(0, 256, (168, 224, 3), np.uint8)
        output = picture_prompt(config, Image.fromarray(pixels), settings)
        tokens, (item,) = output["prompt_token_ids"], output["mm_kwargs"]["image"]
        (place,) = output["mm_placeholders"]["image"]
        features = [MultiModalFeatureSpec(item, "image", "picture", place)]
        positions, _ = model.get_mrope_input_positions(tokens, features)

        def corrected(rows: Any, ids: Any, before: torch.Tensor) -> Any:
            return model.recompute_mrope_positions(ids, rows, before, 0)

        with torch.inference_mode():
            (fields,) = runner_batches([item], device=None)
            rows, after, delta = corrected(
                model.embed_multimodal(**fields), tokens, positions.clone()
            )
        assert torch.equal(after, positions) == bool(settings)
        with model_on_card(config, model) as card, torch.inference_mode():
            model._warm_up._is_cold = False
            (fields,) = runner_batches([item])
            embedded = model.embed_multimodal(**fields)
            card.waits.clear()
            found = corrected(embedded, tokens, positions.clone())
            assert card.waits == [f"a copy to the host in {HOOK}.recompute_mrope_positions"]
            card.waits.clear()
            ids = sent(torch.tensor(tokens, dtype=torch.int32), CARD)
            on_card = corrected(embedded, ids, sent(positions, CARD))
            assert card.waits == [
                f"a copy to the host in {HOOK}.recompute_mrope_positions",
                f"a copy to the host in {HOOK}.recompute_mrope_positions",
                f"item in {HOOK}.delta",
            ]
            assert isinstance(on_card[1], OnCard)
            for cleaned, written, offset in (found, on_card):
                assert torch.equal(host(written), after) and offset == delta
                for one, other in zip(cleaned, rows, strict=True):
                    assert torch.equal(host(one), other)
