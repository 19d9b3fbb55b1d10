"""vLLM's warning about named classes of models is left out for ours, and for no others."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from vllm import config as vllm_config
from vllm.model_executor.models import ModelRegistry

from vllm_pruner import compat
from vllm_pruner.families import registry

OTHER = {"SomebodysModel": "vllm_pruner.families.llava:PrunedLlava"}


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What vLLM's logger of models shows."""
    compat.quiet_overrides(registry.classes)
    shown: list[str] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: shown.append(record.getMessage()))
    logger = logging.getLogger("vllm.config.model")
    logger.addHandler(handler)
    yield shown
    logger.removeHandler(handler)


def _apply(monkeypatch: pytest.MonkeyPatch, classes: dict[str, str]) -> None:
    """Let vLLM take the classes as it does at start, without what `compat.model_classes` remembers
    of its registry, which is as before when the test ends."""
    from vllm import logger
    from vllm.config import model

    monkeypatch.setattr(model, "_REGISTERED_MODEL_CLASS_OVERRIDES", set())
    monkeypatch.setattr(ModelRegistry, "models", dict(ModelRegistry.models))
    logger._print_warning_once.cache_clear()
    config: Any = object.__new__(vllm_config.ModelConfig)
    config.model_class_overrides = classes
    inspect.unwrap(vllm_config.ModelConfig._maybe_register_model_class_overrides)(config)


def test_ours_alone_are_not_warned_about(monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    _apply(monkeypatch, dict(registry.classes()))
    assert lines == []


@pytest.mark.parametrize("ours", [{}, registry.classes()], ids=["others", "others-and-ours"])
def test_others_are_warned_about(
    ours: dict[str, str], monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    _apply(monkeypatch, {**OTHER, **ours})
    (line,) = lines
    assert "SomebodysModel" in line and "development/debugging" in line


def test_asked_twice_it_is_there_once() -> None:
    compat.quiet_overrides(registry.classes)
    compat.quiet_overrides(registry.classes)
    found = logging.getLogger("vllm.config.model").filters
    assert len([each for each in found if type(each).__module__.endswith("log_lines")]) == 1
