"""The registry of methods, and what one entry holds."""

from __future__ import annotations

import argparse
import dataclasses

import pytest
import torch

import vllm_pruner
from vllm_pruner import cli
from vllm_pruner import method as methods
from vllm_pruner.budget import Budget
from vllm_pruner.config import PruneConfig
from vllm_pruner.method import Method, Options, VisualTokens


class FirstOptions(Options):
    skip: int = 0


def first(tokens: VisualTokens, keep: int, options: FirstOptions) -> torch.Tensor:
    index = torch.arange(options.skip, options.skip + keep)
    return index.expand(tokens.features.shape[0], keep)


@pytest.fixture
def out_of_tree(monkeypatch: pytest.MonkeyPatch) -> Method:
    """A method that somebody else registers, gone again after the test."""
    built_in = {name: methods.get(name) for name in methods.names()}
    monkeypatch.setattr(methods, "_METHODS", built_in)
    return methods.register(
        Method("first", first, FirstOptions, False, lambda tokens, budget: tokens // 2)
    )


def test_the_built_in_methods_are_known_without_importing_them() -> None:
    assert methods.names() == ["adafv", "attention", "random", "uniform", "vispruner"]
    assert all(methods.get(name).name == name for name in methods.names())


def test_only_methods_that_rank_ask_for_importance() -> None:
    asking = {name for name in methods.names() if methods.get(name).needs_importance}
    assert asking == {"adafv", "attention", "vispruner"}


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError) as raised:
        methods.get("VisPruner")
    assert (
        str(raised.value)
        == "method is 'VisPruner'; allowed: adafv, attention, random, uniform, vispruner"
    )


def test_registering_twice_is_harmless_but_a_name_is_given_only_once(out_of_tree) -> None:
    assert methods.register(out_of_tree) is out_of_tree
    with pytest.raises(ValueError, match=r"^method 'first' is registered already$"):
        methods.register(Method("first", first, FirstOptions))
    assert methods.get("first") is out_of_tree


def test_a_method_from_outside_works_wherever_a_built_in_one_does(out_of_tree) -> None:
    kept = vllm_pruner.select("first", keep=3, features=torch.zeros(2, 9, 1), skip=4)
    assert kept.tolist() == [[4, 5, 6]] * 2
    config = PruneConfig.parse({"method": "first", "options": {"skip": 2}})
    assert config.resolved == (out_of_tree, FirstOptions(skip=2))
    assert config.keep_count(576) == 288
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    assert "attention, first, random" in " ".join(parser.format_help().split())


def test_a_method_does_not_change_once_made() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        methods.get("uniform").name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["attention", "random", "uniform", "vispruner"])
@pytest.mark.parametrize("budget", [Budget(rate=0.9), Budget(tokens=7), Budget(tokens=99)], ids=str)
def test_the_count_that_sizes_the_prompt_is_the_count_that_is_selected(name, budget) -> None:
    method = methods.get(name)
    keep = method.keep_count(50, budget)
    tokens = VisualTokens(torch.ones(1, 50, 4), torch.ones(1, 50))
    assert method.select(tokens, keep, method.options()).shape == (1, keep)
