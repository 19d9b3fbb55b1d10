"""`vllm preload` and `--load-format ipc_cache`: a model is built without memory, and a process that
holds the weights gives them. What is vtprune's own has none of it.

vLLM shares memory between processes on GPUs only. Here its own loader gets the tensors by value, as
they are before a CPU's layers pack them, and has layers pack them then.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pruned_model as models
import pytest
import torch
from model_on_card import embedded
from pruned_model import picture_items, pruned_model, stock_model
from vllm.config import LoadConfig
from vllm.model_executor.model_loader.weight_cache import ipc_loader
from vllm.model_executor.model_loader.weight_cache.daemon import export_entries
from vllm.model_executor.model_loader.weight_cache.protocol import WeightCacheState

SIZES = [(168, 224), (140, 112)]


def _state(holder: AbstractContextManager[Any]) -> WeightCacheState:
    """What the process that holds the weights gives."""
    with holder as (_, model):
        return WeightCacheState(*export_entries(model), {})


def _mapped(config: Any, state: WeightCacheState) -> Any:
    """The model that vLLM builds from tensors that it is given."""
    loader = ipc_loader.IpcModelLoader(LoadConfig(load_format="ipc_cache", device="cpu:0"))
    return loader._build_model(config, config.model_config, "", state)


@pytest.mark.parametrize("checkpoint", ["demo", "demo-next", "demo-qwen2.5", "demo-internvl"])
@pytest.mark.parametrize("holder", [stock_model, pruned_model], ids=["stock", "pruned"])
def test_rows_are_those_of_a_model_with_memory(
    checkpoint: str, holder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever holds the weights, with vtprune or without."""
    monkeypatch.setattr(ipc_loader, "weights_already_processed", nullcontext)
    flags = {"dtype": "float32", "trust_remote_code": True}
    settings = ({},) if holder is pruned_model else ()
    with monkeypatch.context() as unpacked:
        unpacked.setattr(models, "process_weights_after_loading", lambda *_: None)
        state = _state(holder(checkpoint, *settings, **flags))
    with pruned_model(checkpoint, {}, **flags) as (config, model):
        items = picture_items(config, SIZES, (7,), {"rate": 0.5})
        expected = embedded(model, items, device=None)
        config.compilation_config.static_forward_context.clear()  # names of the first one's layers
        mapped = _mapped(config, state)
        for _known in (False, True):
            found = embedded(mapped, items, device=None)
            for rows, those in zip(found, expected, strict=True):
                assert torch.equal(rows, those)
