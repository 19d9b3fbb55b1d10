"""The flags of `vllm serve`, read by a real parser."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from vllm_pruner import methods
from vllm_pruner.settings import cli
from vllm_pruner.settings.errors import ConfigError


def settings(*flags: str) -> dict[str, Any] | None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    cli.add_arguments(parser)
    return cli.settings(parser.parse_args(flags))


@pytest.mark.parametrize(
    "flags, same_as",
    [
        ([], {}),
        (["--prune-rate", "0.5"], {"rate": 0.5}),
        (["--prune-rate", "0"], {"rate": 0.0}),
        (["--prune-rate=5e-1"], {"rate": 0.5}),
        (["--prune-tokens", "64"], {"tokens": 64}),
        (["--prune-tokens", "10000"], {"tokens": 10_000}),
        (["--prune-method", "attention"], {"method": "attention"}),
        (["--prune-options", '{"alpha": 0.5}'], {"options": {"alpha": 0.5}}),
        (
            ["--prune-method=random", "--prune-tokens=9", '--prune-options={"seed": 5}'],
            {"method": "random", "tokens": 9, "options": {"seed": 5}},
        ),
        (['--prune-detail={"low": 0.9}'], {"detail": {"low": 0.9}}),
        (['--prune-limits={"max_rate": 0.95}'], {"limits": {"max_rate": 0.95}}),
        (
            ["--prune-shadow=1", "--prune-shadow-log=a.jsonl"],
            {"shadow": 1, "shadow_log": "a.jsonl"},
        ),
    ],
    ids=str,
)
def test_the_flags_stand_for_the_settings(flags, same_as) -> None:
    assert settings("--plugin", "vtprune", *flags) == same_as


def test_no_flags_mean_no_settings() -> None:
    assert settings() is None


def test_arguments_made_without_our_flags_mean_no_settings() -> None:
    """vLLM builds namespaces of its own in places; they lack attributes that a plugin added."""
    assert cli.settings(argparse.Namespace()) is None


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (["--prune-rate=-1"], "--prune-rate is -1.0; it should be greater than or equal to 0"),
        (["--prune-rate=1"], "--prune-rate is 1.0; it should be less than 1"),
        (["--prune-rate=nan"], "--prune-rate is nan; it should be a finite number"),
        (["--prune-rate=inf"], "--prune-rate is inf; it should be a finite number"),
        (["--prune-shadow=1.1"], "--prune-shadow is 1.1; it should be less than or equal to 1"),
        (
            ["--prune-shadow-log=a.jsonl"],
            "--prune-shadow-log is a.jsonl and --prune-shadow is 0; allowed: a shadow above 0",
        ),
        (["--prune-rate=half"], "--prune-rate is 'half'; it should be a valid number"),
        (["--prune-rate="], "--prune-rate is ''; it should be a valid number"),
        (["--prune-tokens=0"], "--prune-tokens is 0; it should be greater than or equal to 1"),
        (["--prune-tokens=-3"], "--prune-tokens is -3; it should be greater than or equal to 1"),
        (["--prune-tokens=2.5"], "--prune-tokens is '2.5'; it should be a valid integer"),
        (["--prune-tokens=many"], "--prune-tokens is 'many'; it should be a valid integer"),
        (
            ["--prune-rate=0.5", "--prune-tokens=64"],
            "--prune-rate is 0.5 and --prune-tokens is 64; allowed: one of the two",
        ),
        (
            ["--prune-method=magic"],
            f"--prune-method is 'magic'; allowed: {', '.join(methods.names())}",
        ),
        (
            ["--prune-method=scope", '--prune-options={"stride": 8}'],
            "--prune-options.stride is 8 but scope has no such option; allowed: alpha",
        ),
        (
            ["--prune-method=scope", '--prune-options={"important_ratio": 0.75}'],
            "--prune-options.important_ratio is 0.75 but scope has no such option; "
            "allowed: alpha; --prune-method vispruner has it",
        ),
        (
            ["--prune-method=vispruner", '--prune-options={"step": 0}'],
            "--prune-options.step is 0; it should be greater than or equal to 1",
        ),
        (
            ["--prune-method=scope", '--prune-options={"alpha": NaN}'],
            "--prune-options.alpha is nan; it should be a finite number",
        ),
        (
            ["--prune-options={step: 8}"],
            "--prune-options is '{step: 8}'; it should be a valid dictionary",
        ),
        (["--prune-options=[8]"], "--prune-options is [8]; it should be a valid dictionary"),
        (['--prune-detail={"low": 1}'], "--prune-detail.low is 1; it should be less than 1"),
        (
            ["--prune-rate=0.9", '--prune-limits={"max_rate": 0.5}'],
            "--prune-rate is 0.9; allowed: rates from 0 to 0.5, by --prune-limits",
        ),
        (
            ["--prune-method=vispruner", '--prune-limits={"methods": ["vispruner", "magic"]}'],
            f"--prune-limits.methods is 'magic'; allowed: {', '.join(methods.names())}",
        ),
        (
            ["--prune-method=scope", '--prune-limits={"methods": ["adafv"]}'],
            "--prune-method is 'scope'; allowed: adafv, by --prune-limits",
        ),
    ],
    ids=str,
)
def test_a_bad_value_gets_one_sentence_that_names_the_flag(flags, sentence) -> None:
    with pytest.raises(ConfigError) as raised:
        settings("--plugin=vtprune", *flags)
    assert str(raised.value) == sentence


@pytest.mark.parametrize(
    ("flag", "taken"),
    [
        ('--prune-options={"step": 8}', {"options": {"step": 8}}),
        ('--prune-limits={"methods": ["adafv"]}', {"limits": {"methods": ["adafv"]}}),
    ],
)
def test_what_depends_on_the_method_waits_for_the_family_s(flag: str, taken: object) -> None:
    """Which is known once the model is; `tests/families/test_start.py` has what is said then."""
    assert settings("--plugin=vtprune", flag) == taken


@pytest.mark.parametrize(
    "flag",
    ["--prune-rate=0.5", "--prune-tokens=64", "--prune-method=uniform", "--prune-options={}"],
)
def test_a_flag_without_the_plugin_is_refused(flag) -> None:
    with pytest.raises(ConfigError) as raised:
        settings(flag)
    assert str(raised.value) == f"{flag.split('=')[0]} is given without --plugin vtprune"


def test_another_plugin_is_refused_by_the_parser() -> None:
    with pytest.raises(argparse.ArgumentError, match="invalid choice: 'vtprun'"):
        settings("--plugin", "vtprun")


def test_the_help_explains_every_flag_and_names_every_method() -> None:
    formatter = argparse.ArgumentDefaultsHelpFormatter  # as vLLM's is
    parser = argparse.ArgumentParser(prog="vllm serve", formatter_class=formatter)
    cli.add_arguments(parser)
    text = " ".join(parser.format_help().split())
    ours = [action for action in parser._actions if action.dest != "help"]
    assert {action.option_strings[0] for action in ours} >= {
        "--plugin",
        "--prune-method",
        "--prune-rate",
        "--prune-tokens",
        "--prune-options",
        "--prune-crop-budget",
        "--prune-feature-cache-mb",
        "--prune-detail",
        "--prune-limits",
    }
    assert all(action.help and action.help.endswith(".") for action in ours)
    assert ", ".join(methods.names()) in text
    assert "(default: None)" not in text, "beside our own words"
