"""When kernels are compared with their references at load, and what is said if they differ."""

from __future__ import annotations

import pytest
import torch
from vllm.platforms import current_platform
from vtprune_kernels.trial import INPUTS

from vllm_pruner.worker import trial

CPU = torch.device("cpu")
SENTENCE = r"kernels of dedup, ranked differ from their references; allowed: VLLM_VTPRUNE_DISABLE=1"


@pytest.fixture
def differing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of which two differ."""
    monkeypatch.setattr(trial, "trial", lambda device: iter([("dedup", "why"), ("ranked", "why")]))


@pytest.mark.usefixtures("differing")
@pytest.mark.parametrize("on_rocm", [False, True])
@pytest.mark.parametrize("said", ["", "0", "1"])
def test_it_is_due_on_amd_or_where_it_is_asked_for(
    on_rocm: bool, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(current_platform, "is_rocm", lambda: on_rocm)
    monkeypatch.setenv("VLLM_VTPRUNE_TRIAL", said)
    if said == "1" or (on_rocm and not said):
        with pytest.raises(RuntimeError, match=SENTENCE):
            trial.try_kernels(CPU)
    else:
        trial.try_kernels(CPU)


def test_operators_that_agree_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_VTPRUNE_TRIAL", "1")
    monkeypatch.setattr("vtprune_kernels.trial.INPUTS", INPUTS[:1])
    trial.try_kernels(CPU)


def test_another_word_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_VTPRUNE_TRIAL", "yes")
    with pytest.raises(ValueError, match="VLLM_VTPRUNE_TRIAL is 'yes'; allowed: 1 .* 0 for none"):
        trial.try_kernels(CPU)
