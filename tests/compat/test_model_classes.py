"""Several engines in one process: each has the classes of its own configuration, whichever came
first."""

from __future__ import annotations

from typing import Any

import pytest
from pruned_model import stock_class
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.models import ModelRegistry
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm_process import MODELS

from vllm_pruner import plugin
from vllm_pruner.families.registry import classes
from vllm_pruner.prompt.processor import PrunedProcessor

SETTINGS = {"vtprune": {"rate": 0.5}}


@pytest.fixture(autouse=True)
def plugged() -> None:
    plugin.register()


def _config(checkpoint: str, **flags: Any) -> Any:
    return EngineArgs(model=str(MODELS / checkpoint), **flags).create_model_config()


def _prunes(config: Any) -> bool:
    return isinstance(MULTIMODAL_REGISTRY.create_processor(config), PrunedProcessor)


@pytest.mark.parametrize("second", ["demo", "demo-siglip"])
def test_an_engine_without_settings_is_stock_beside_one_that_prunes(second: str) -> None:
    before = _config("demo-siglip")
    assert not _prunes(before)
    pruned = _config("demo-siglip", mm_processor_kwargs=SETTINGS)
    assert _prunes(pruned), "a class that was found before is not meant for it"
    after = _config(second)
    assert not _prunes(after), "it has no settings"
    assert [_prunes(each) for each in (before, pruned, after, pruned)] == [False, True, False, True]


def test_a_class_of_somebody_else_stays_theirs() -> None:
    name = "LlavaForConditionalGeneration"
    own = stock_class(classes()[name])
    theirs = _config("demo", model_class_overrides={name: f"{own.__module__}:{own.__name__}"})
    assert _prunes(_config("demo", mm_processor_kwargs=SETTINGS))
    assert not _prunes(theirs)


def test_what_only_we_register_is_not_there_without_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "Qwen3VLForConditionalGeneration"
    stock = _config("demo")  # puts vLLM's own there, which is what the test gives back
    monkeypatch.delitem(ModelRegistry.models, name)
    pruned = _config("demo", mm_processor_kwargs=SETTINGS)
    assert _prunes(pruned)
    assert not _prunes(stock)
    assert name not in ModelRegistry.models
    assert _prunes(pruned)
    assert not _prunes(stock)
