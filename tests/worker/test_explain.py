"""What a selection is explained by, for a model whose rows have more than methods compare."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pruned_model import picture_batch, pruned_model

from vllm_pruner.worker.explain import explain

pytestmark = pytest.mark.slow


def _packed(field: torch.Tensor) -> tuple[str, list[int], bytes]:
    array = field.numpy()
    return str(array.dtype), list(array.shape), array.tobytes()


def test_relevance_is_of_the_levels_that_methods_compare() -> None:
    """Qwen3-VL's rows have DeepStack's levels behind a token's own, the text's embeddings have
    none."""
    settings: dict[str, Any] = {"method": "adafv", "rate": 0.5}
    with pruned_model("demo-qwen3", settings, dtype="float32") as (config, model):
        batch = picture_batch(config, [(224, 336)], (1,), settings)
        (told,) = explain(model, [{name: _packed(field) for name, field in batch.items()}])
    (view,) = told["views"]
    assert told["fault"] is None and len(view["relevance"]) == told["original"]
    assert min(view["relevance"]) >= 0.0 and max(view["relevance"]) > 0.0
