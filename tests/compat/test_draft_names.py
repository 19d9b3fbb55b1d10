"""A draft model finds a target of ours by the name of vLLM's own class."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest
from pruned_model import stock_class
from torch import nn
from vllm.v1.spec_decode.eagle import EagleProposer

from vllm_pruner import compat
from vllm_pruner.families.registry import classes


def _name_of(model: nn.Module) -> str:
    compat.patch_draft_names()
    proposer: Any = object.__new__(EagleProposer)  # it needs a GPU to be made
    name: str = proposer.get_model_name(model)
    return name


def _is_here(ours: str) -> bool:
    """Whether this vLLM has the model of a class: 0.31 lacks MiniCPM-V 4.7."""
    return compat.at_least((0, 32)) or "minicpmv4_7" not in ours


@pytest.mark.parametrize("ours", sorted(filter(_is_here, {*classes().values()})))
def test_a_class_of_ours_goes_by_the_name_of_vllms(ours: str) -> None:
    model: Any = object.__new__(EntryPoint("", ours, "").load())
    assert _name_of(model) == stock_class(ours).__name__ != type(model).__name__


def test_others_go_by_their_own() -> None:
    assert _name_of(nn.Linear(1, 1)) == "Linear"
