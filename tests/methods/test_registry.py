"""Where methods come from: entry points of installed packages, ours and others'."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from installed_package import declare_package

import vllm_pruner
from vllm_pruner import methods
from vllm_pruner.methods.base import ALLOWED, Method, Need, Options, VisualTokens
from vllm_pruner.methods.budget import Budget
from vllm_pruner.settings import cli
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.rules import check
from vllm_pruner.settings.server import ServerConfig

BUILT_IN = [
    "adafv",
    "adafv-ref",
    "attention",
    "cdpruner",
    "divprune",
    "hiprune",
    "pixels",
    "pool",
    "prumerge+",
    "random",
    "resize",
    "scope",
    "triad",
    "uniform",
    "visionzip",
    "vispruner",
]

FIRST = """
import torch
from vllm_pruner.methods.base import Method, Options

class FirstOptions(Options):
    skip: int = 0

def first(tokens, keep, options):
    index = torch.arange(options.skip, options.skip + keep)
    return index.expand(tokens.features.shape[0], keep)

FIRST = Method("first", first, FirstOptions, keep_count=lambda tokens, budget: tokens // 2)
NUMBER = 7
GREEDY = Method("greedy", first, needs=frozenset({"attention_map"}))
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put packages with entry points on the path, gone again after the test."""

    def forget() -> None:
        methods._installed.cache_clear()
        methods._load.cache_clear()
        methods.package_of.cache_clear()

    def install(package: str, **entry_points: str) -> None:
        declare_package(tmp_path, package, "vtprune.methods", entry_points)
        (tmp_path / "outside.py").write_text(FIRST)
        monkeypatch.syspath_prepend(tmp_path)
        forget()

    yield install
    monkeypatch.undo()
    forget()


def test_the_built_in_methods_are_entry_points_like_any_other() -> None:
    assert methods.names() == BUILT_IN
    assert methods.names(methods.VIDEO_GROUP) == ["evs", "vidcom2"]
    for group in (methods.GROUP, methods.VIDEO_GROUP):
        assert all(methods.get(name, group).name == name for name in methods.names(group))
    methods.check_installed()


def test_a_method_says_what_it_looks_at() -> None:
    asking = {need: {n for n in BUILT_IN if need in methods.get(n).needs} for need in Need}
    assert asking[Need.TEXT] == {"adafv", "adafv-ref", "cdpruner", "triad"}
    assert asking[Need.PROJECTED] == asking[Need.TEXT] | {"divprune"}
    assert asking[Need.KEYS] == {"visionzip", "prumerge+"}
    assert asking[Need.RECEIVED] == asking[Need.RECEIVED_MIDWAY] == {"hiprune"}
    assert asking[Need.GRID] == {"hiprune", "pixels", "pool", "resize"}
    needs_nothing = {name for name in BUILT_IN if not methods.get(name).needs}
    assert needs_nothing == {"random", "uniform"}


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError) as raised:
        methods.get("VisPruner")
    assert str(raised.value) == f"method is 'VisPruner'; allowed: {', '.join(BUILT_IN)}"


def test_a_method_from_outside_works_wherever_a_built_in_one_does(install: Install) -> None:
    install("elsewhere", first="outside:FIRST")
    assert methods.names() == sorted([*BUILT_IN, "first"])
    kept = vllm_pruner.select("first", keep=3, features=torch.zeros(2, 9, 1), skip=4)
    assert kept.tolist() == [[4, 5, 6]] * 2
    config = ServerConfig.parse({"method": "first", "options": {"skip": 2}}).images
    assert config.resolved[1].model_dump() == {"skip": 2}
    assert config.keep_count(576) == 288
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    assert "divprune, first, hiprune" in " ".join(parser.format_help().split())


def test_a_package_is_known_by_where_its_method_stands(install: Install) -> None:
    install("elsewhere", first="outside:FIRST")
    assert methods.built_in() == BUILT_IN
    assert methods.package_of("first") == "elsewhere"
    assert {methods.package_of(name) for name in BUILT_IN} == {None}


def test_only_what_the_operator_named_is_open_to_clients(install: Install) -> None:
    install("elsewhere", first="outside:FIRST")
    open_to_all = {"limits": {"methods": ["first", "uniform"]}, "method": "uniform"}
    assert ServerConfig.parse({}).limits.methods == BUILT_IN
    assert ServerConfig.parse({"method": "first"}).limits.methods == [*BUILT_IN, "first"]
    assert ServerConfig.parse(open_to_all).limits.methods == ["first", "uniform"]
    for name in ("first", "last"):
        with pytest.raises(ConfigError) as raised:
            check(ServerConfig.parse({}), {"method": name})
        allowed = ", ".join(BUILT_IN)
        assert raised.value.at_request() == f"method is {name!r}; allowed here: {allowed}"
    assert check(ServerConfig.parse(open_to_all), {"method": "first"}).method == "first"


BROKEN = {
    "no module": ({"lost": "nowhere:LOST"}, "method 'lost' of package p cannot be loaded from "
        "'nowhere:LOST' (ModuleNotFoundError: No module named 'nowhere')"),
    "no attribute": ({"lost": "outside:LOST"}, "method 'lost' of package p cannot be loaded from "
        "'outside:LOST' (AttributeError: module 'outside' has no attribute 'LOST')"),
    "no method": ({"seven": "outside:NUMBER"},
        "method 'seven' of package p is int at 'outside:NUMBER'; allowed: a Method"),
    "another name": ({"second": "outside:FIRST"},
        "method 'second' of package p calls itself 'first'; allowed: the entry point's name"),
    "an unknown need": ({"greedy": "outside:GREEDY"}, "method 'greedy' of package p needs "
        f"'attention_map'; allowed: {', '.join(ALLOWED)}"),
    "a name that is taken": ({"uniform": "outside:FIRST"},
        "method 'uniform' is in several packages: p, vtprune; allowed: one"),
}  # fmt: skip


@pytest.mark.parametrize("entry_points, sentence", BROKEN.values(), ids=BROKEN)
def test_a_broken_package_stops_the_server_with_one_sentence_and_nothing_else(
    install: Install, entry_points: dict[str, str], sentence: str
) -> None:
    install("p", **entry_points)
    with pytest.raises(ConfigError) as raised:
        ServerConfig.parse({})
    assert str(raised.value) == sentence
    with pytest.raises(ValueError) as asked:
        methods.get(next(iter(entry_points)))
    assert str(asked.value) == sentence
    # Without `--plugin vtprune` only the names are listed, and other methods still work.
    cli.add_arguments(argparse.ArgumentParser())
    assert methods.get("vispruner").name == "vispruner"


def test_a_method_need_not_be_installed_to_be_called() -> None:
    def last(tokens: VisualTokens, keep: int, options: Options) -> torch.Tensor:
        images, total, _ = tokens.features.shape
        return torch.arange(total - keep, total).expand(images, keep)

    kept = vllm_pruner.select(Method("last", last), keep=2, features=torch.zeros(9, 1))
    assert kept.tolist() == [7, 8]


def test_a_method_does_not_change_once_made() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        methods.get("uniform").name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("budget", [Budget(rate=0.9), Budget(tokens=7), Budget(tokens=99)], ids=str)
def test_the_count_that_sizes_the_prompt_is_within_the_budget(name, budget) -> None:
    method = methods.get(name)
    keep = method.keep_count(50, budget)
    most = 5 if budget.rate else min(50, budget.tokens)
    assert 0 < keep <= most
    config = PruneConfig(method=name, rate=budget.rate, tokens=budget.tokens)
    assert config.keep_count(50) == keep
    if name not in ("adafv-ref", "resize"):
        assert keep == most


def test_resize_counts_grids() -> None:
    resize = methods.get("resize")
    budgets = (1, 2, 3, 5, 6, 58, 64, 72, 576)
    counts = [resize.keep_count(576, Budget(tokens=budget)) for budget in budgets]
    assert counts == [1, 2, 2, 4, 6, 56, 64, 72, 576]
    grids = [resize.shrink(count) for count in counts]
    assert grids == [(1, 1), (1, 2), (1, 2), (2, 2), (2, 3), (7, 8), (8, 8), (8, 9), (24, 24)]
    with pytest.raises(
        ValueError, match=r"^keep is 2; allowed: 4, because method 'resize' shrinks"
    ):
        vllm_pruner.select("resize", keep=2, features=torch.ones(4, 8), grid=(2, 2))
