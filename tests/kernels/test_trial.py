"""The comparison at load: it passes kernels that agree and names those that do not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from vtprune_kernels import trial as trial_module
from vtprune_kernels.spec import Spec, all_specs
from vtprune_kernels.trial import INPUTS, trial

CPU = torch.device("cpu")
SPECS = {spec.id: spec for spec in all_specs()}


def _spoiled(spec: Spec) -> Spec:
    """An operator whose first result is another one."""

    def op(**inputs: Any) -> torch.Tensor:
        result: torch.Tensor = spec.op(**inputs).clone()
        result.view(-1)[0] += 1
        return result

    return replace(spec, op=op)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first inputs alone: larger ones are those of each operator's own tests."""
    monkeypatch.setattr(trial_module, "INPUTS", INPUTS[:1])


def test_operators_agree_with_themselves() -> None:
    assert not dict(trial(CPU))


@pytest.mark.usefixtures("interpreted")
def test_kernels_agree_in_the_interpreter() -> None:
    launched = [replace(SPECS[name], op=SPECS[name].launcher) for name in ("dedup", "ranked")]
    assert not dict(trial(CPU, launched))


@pytest.mark.parametrize("name", ["dedup", "top_k_sorted", "cosine_gram"])
def test_one_that_differs_is_named(name: str) -> None:
    failed = dict(trial(CPU, [SPECS["ranked"], _spoiled(SPECS[name])]))
    assert list(failed) == [name]
    assert failed[name].startswith("AssertionError")


def test_one_that_raises_is_named_with_its_error() -> None:
    def op(**inputs: Any) -> torch.Tensor:
        raise KeyError("Keyword argument maxnreg was specified but unrecognised")

    failed = dict(trial(CPU, [replace(SPECS["dedup"], op=op), SPECS["ranked"]]))
    assert failed.keys() == {"dedup"}
    assert "maxnreg" in failed["dedup"]
