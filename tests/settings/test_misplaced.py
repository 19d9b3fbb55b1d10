"""An engine's `mm_processor_kwargs`, where a misspelt key would leave its images unpruned in
silence, and a model has keys of its own."""

from __future__ import annotations

from typing import Any

import pytest
from vllm.engine.arg_utils import EngineArgs
from vllm_process import MODELS

from vllm_pruner import plugin
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.misplaced import misspelt

SETTINGS = {"rate": 0.5}
MEANT = ["vtprun", "vtprunes", "vt_prune", "vt-prune", "VTPRUNE", "vptrune", "vtprune_rate"]
THEIRS = ["prune", "pruned", "prune_ratio", "truncate", "max_pixels", "size", "do_pad", ""]


@pytest.mark.parametrize("key", MEANT)
def test_a_key_like_ours_is_refused(key: str) -> None:
    told = f"vtprune: {key} is given but there is no such key; allowed: vtprune in mm_processor_kw"
    assert misspelt({"max_pixels": 100, key: SETTINGS}).startswith(told)


@pytest.mark.parametrize("key", THEIRS)
def test_a_models_own_key_is_left_to_it(key: str) -> None:
    assert misspelt({key: SETTINGS}) == ""


def test_beside_ours_less_likeness_is_enough() -> None:
    assert misspelt({"vtprune": SETTINGS, "prune_rate": 0.5}).startswith("vtprune: prune_rate is")
    assert misspelt({"vtprune": SETTINGS, "max_pixels": 100}) == ""


@pytest.mark.parametrize("beside", [{}, {"vtprune": {}}], ids=str)
def test_ours_among_those_of_one_modality_is_refused(beside: dict[str, Any]) -> None:
    told = "vtprune: settings are given in images_kwargs; allowed: vtprune in mm_processor_kwargs"
    assert misspelt({"images_kwargs": {"vtprune": SETTINGS}, **beside}) == told
    assert misspelt({"images_kwargs": {"vtprun": SETTINGS}, **beside}) == ""


def test_an_engine_does_not_start_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin.register()
    arguments = EngineArgs(model=str(MODELS / "demo"), mm_processor_kwargs={"vtprun": SETTINGS})
    with pytest.raises(ConfigError, match="^vtprune: vtprun is given but there is no such key"):
        arguments.create_model_config()
    monkeypatch.setenv("VLLM_VTPRUNE_DISABLE", "1")
    arguments.create_model_config()
