"""vLLM's sleep of level 2 gives away the memory that a model was built in; weights are loaded and
buffers copied back, and all else is lost.

A CPU has no such sleep and loads no weights in place, so what would be lost is overwritten here,
and the model is told what vLLM's workers tell it (`tests/server/test_new_weights.py`: real ones).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from model_on_card import embedded
from pruned_model import picture_items, pruned_model
from vllm.v1.worker.gpu_worker import Worker

from vllm_pruner.compat.patching import is_patched

SIZES = [(168, 224), (140, 112)]
CONTAINERS = (dict, list, tuple, set)


def _held(holder: Any, seen: set[int]) -> Iterator[torch.Tensor]:
    """The tensors that vtprune's objects under a model hold."""
    if id(holder) in seen:
        return
    seen.add(id(holder))
    if isinstance(holder, torch.Tensor):
        yield holder
    elif isinstance(holder, CONTAINERS):
        for each in holder.values() if isinstance(holder, dict) else holder:
            yield from _held(each, seen)
    elif any(each.__module__.startswith("vllm_pruner.") for each in type(holder).__mro__):
        yield from _held(getattr(holder, "__dict__", {}), seen)


@pytest.mark.parametrize("checkpoint", ["demo", "demo-next", "demo-gemma4"])
def test_rows_are_those_of_before(checkpoint: str) -> None:
    with pruned_model(checkpoint, {}, dtype="float32") as (config, model):
        kept = {id(each) for each in [*model.parameters(), *model.buffers()]}
        lost = [each for each in _held(model, set()) if id(each) not in kept]
        assert lost, "at least the feature cache"
        items = picture_items(config, SIZES, (7,), {"rate": 0.5})
        before = embedded(model, items, device=None)
        for each in lost:
            each.fill_(torch.nan)
        model.forget()
        for _known in (False, True):
            found = embedded(model, items, device=None)
            for rows, expected in zip(found, before, strict=True):
                assert torch.equal(rows, expected)


def test_whatever_changes_weights_tells_the_model() -> None:
    with pruned_model("demo", {}, dtype="float32") as (_, model):
        assert is_patched(Worker, "reload_weights")
        assert is_patched(Worker, "finish_weight_update")
        model._encoder.cache.clear = lambda: told.append(model)
        told: list[Any] = []
        assert model.load_weights(()) == set()
        assert told == [model]
