"""Settings from outside: what is accepted, what is refused and how, what overrides what."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from pydantic import ValidationError

from vllm_pruner import methods
from vllm_pruner.methods.base import Need
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.defaults import DEFAULT_METHOD, DEFAULT_RATE
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.override import override

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "data, sentence",
    [
        ({"rate": -1}, "rate is -1; it should be greater than or equal to 0"),
        ({"rate": -1e-9}, "rate is -1e-09; it should be greater than or equal to 0"),
        ({"rate": 1}, "rate is 1; it should be less than 1"),
        ({"rate": 1.5}, "rate is 1.5; it should be less than 1"),
        ({"rate": NAN}, "rate is nan; it should be a finite number"),
        ({"rate": INF}, "rate is inf; it should be a finite number"),
        ({"rate": -INF}, "rate is -inf; it should be a finite number"),
        ({"rate": "0.5"}, "rate is '0.5'; it should be a valid number; write 0.5, without quotes"),
        ({"rate": True}, "rate is True; it should be a valid number"),
        ({"rate": [0.5]}, "rate is [0.5]; it should be a valid number"),
        ({"tokens": 0}, "tokens is 0; it should be greater than or equal to 1"),
        ({"tokens": -3}, "tokens is -3; it should be greater than or equal to 1"),
        ({"tokens": 2.5}, "tokens is 2.5; it should be a valid integer"),
        ({"tokens": 64.0}, "tokens is 64.0; it should be a valid integer"),
        (
            {"tokens": "64"},
            "tokens is '64'; it should be a valid integer; write 64, without quotes",
        ),
        ({"tokens": True}, "tokens is True; it should be a valid integer"),
        ({"rate": 0.5, "tokens": 64}, "rate is 0.5 and tokens is 64; allowed: one of the two"),
        ({"rate": 0.0, "tokens": 64}, "rate is 0.0 and tokens is 64; allowed: one of the two"),
        (
            {"ratio": 0.5},
            "ratio is 0.5 but there is no such key; "
            f"allowed: {', '.join(PruneConfig.model_fields)}; the nearest is rate",
        ),
        (
            {"method": "magic"},
            f"method is 'magic'; allowed: {', '.join(methods.names())}",
        ),
        ({"method": ""}, f"method is ''; allowed: {', '.join(methods.names())}"),
        ({"method": None}, "method is None; it should be a valid string"),
        ({"method": ["vispruner"]}, "method is ['vispruner']; it should be a valid string"),
        (
            {"method": "vispruner", "options": {"stride": 8}},
            "options.stride is 8 but vispruner has no such option; allowed: important_ratio, step",
        ),
        (
            {"options": {"important_ratio": 0.75}},
            f"options.important_ratio is 0.75 but {DEFAULT_METHOD} has no such option; "
            "allowed: alpha; method vispruner has it",
        ),
        (
            {"method": "attention", "options": {"alpha": 0.1}},
            "options.alpha is 0.1 but attention has no such option; allowed: none; "
            "method hiprune or scope has it",
        ),
        (
            {"method": "vispruner", "options": {"important_ratio": 2}},
            "options.important_ratio is 2; it should be less than or equal to 1",
        ),
        (
            {"method": "vispruner", "options": {"step": "8"}},
            "options.step is '8'; it should be a valid integer; write 8, without quotes",
        ),
        ({"options": [8]}, "options is [8]; it should be a valid dictionary"),
        ({"options": None}, "options is None; it should be a valid dictionary"),
        (
            {"crop_budget": "each"},
            "crop_budget is 'each'; it should be 'joint' or 'per_crop'",
        ),
        ("vispruner", "settings are 'vispruner'; allowed: an object such as {'rate': 0.9}"),
        ([0.5], "settings are [0.5]; allowed: an object such as {'rate': 0.9}"),
        (None, "settings are None; allowed: an object such as {'rate': 0.9}"),
    ],
    ids=str,
)
def test_bad_settings_get_one_sentence_with_key_value_and_what_is_allowed(data, sentence) -> None:
    with pytest.raises(ConfigError) as raised:
        PruneConfig.parse(data)
    assert str(raised.value) == sentence


@pytest.mark.parametrize(
    "data, kept",
    [
        ({}, 64),
        ({"rate": None, "tokens": None}, 64),
        ({"rate": 0}, 576),
        ({"rate": 0.5}, 288),
        ({"tokens": 17}, 17),
        ({"tokens": 10_000}, 576),
        ({"method": "random", "tokens": 32, "options": {"seed": 3}}, 32),
        ({"method": "vispruner", "options": {"important_ratio": 1, "step": 32}}, 64),
    ],
    ids=str,
)
def test_good_settings_keep_as_many_of_576_as_they_say(data, kept) -> None:
    assert PruneConfig.parse(data).keep_count(576) == kept


def test_the_defaults_are_scope_at_eight_ninths() -> None:
    config = PruneConfig.parse({})
    assert (config.method, config.rate, config.tokens) == ("scope", 8 / 9, None)
    assert config.resolved[1].model_dump() == {"alpha": 1.0}


def test_the_default_reads_no_question() -> None:
    """All questions about a picture share its tokens, and so their prefix."""
    assert not methods.get(DEFAULT_METHOD).needs_text


@pytest.mark.parametrize(
    "data, needs",
    [
        ({"method": "uniform", "importance": "merger_norm"}, set()),
        ({"method": "attention"}, {Need.IMPORTANCE}),
        ({"method": "attention", "importance": "merger_norm"}, {Need.MERGER_NORM}),
    ],
    ids=str,
)
def test_importance_is_needed_by_methods_that_rank_and_of_the_kind_that_is_set(data, needs) -> None:
    assert PruneConfig.parse(data).needs == needs


@pytest.mark.parametrize(
    "data, off",
    [
        ({}, False),
        ({"rate": 0}, True),
        ({"rate": 0.0, "method": "random"}, True),
        ({"rate": -0.0}, True),
        ({"rate": 1e-12}, False),
        ({"tokens": 576}, False),
    ],
    ids=str,
)
def test_only_rate_0_is_off(data, off) -> None:
    assert PruneConfig.parse(data).off is off


SERVER = {"rate": 0.5, "method": "vispruner", "options": {"step": 32}}


@pytest.mark.parametrize(
    "server, request_, merged",
    [
        (SERVER, {}, SERVER),
        (SERVER, {"rate": 0.75}, SERVER | {"rate": 0.75}),
        (SERVER, {"tokens": 64}, SERVER | {"tokens": 64, "rate": None}),
        ({"tokens": 64}, {"rate": 0}, {"rate": 0}),
        (SERVER, {"method": "vispruner"}, SERVER),
        (SERVER, {"method": "random"}, {"rate": 0.5, "method": "random"}),
        (SERVER, {"method": DEFAULT_METHOD}, {"rate": 0.5}),
        ({"options": {"alpha": 2}}, {}, {"options": {"alpha": 2}}),
        ({"options": {"alpha": 2}}, {"method": "hiprune"}, {"method": "hiprune"}),
        (
            SERVER,
            {"method": "random", "options": {"seed": 1}},
            {"rate": 0.5, "method": "random", "options": {"seed": 1}},
        ),
        (
            SERVER,
            {"options": {"important_ratio": 1}},
            SERVER | {"options": {"important_ratio": 1}},
        ),
        (SERVER, {"options": {}}, SERVER | {"options": {}}),
        (SERVER, {"rate": None, "tokens": None, "method": None, "options": None}, SERVER),
        (SERVER, {"rate": None, "tokens": 64}, SERVER | {"rate": None, "tokens": 64}),
    ],
    ids=str,
)
def test_a_request_changes_what_it_names_and_leaves_the_rest(server, request_, merged) -> None:
    before = PruneConfig.parse(server)
    assert override(before, request_) == PruneConfig.parse(merged)
    assert before == PruneConfig.parse(server)


@pytest.mark.parametrize(
    "request_, sentence",
    [
        ({"rate": 2}, "rate is 2; it should be less than 1"),
        ({"rate": 0.5, "tokens": 64}, "rate is 0.5 and tokens is 64; allowed: one of the two"),
        (
            {"method": "uniform", "options": {"step": 32}},
            "options.step is 32 but uniform has no such option; allowed: none; "
            "method vispruner has it",
        ),
        (0.5, "settings are 0.5; allowed: an object such as {'rate': 0.9}"),
        (None, "settings are None; allowed: an object such as {'rate': 0.9}"),
    ],
    ids=str,
)
def test_a_bad_request_is_refused_like_bad_settings(request_, sentence) -> None:
    with pytest.raises(ConfigError) as raised:
        override(PruneConfig.parse(SERVER), request_)
    assert str(raised.value) == sentence


SAME = [
    [{}, {"rate": DEFAULT_RATE}, {"method": DEFAULT_METHOD}, {"options": {"alpha": 1}}],
    [{"method": "vispruner"}, {"method": "vispruner", "options": {"step": 8}}],
    [{"rate": 0}, {"rate": 0.0}],
    [
        {"method": "vispruner", "options": {"important_ratio": 1, "step": 32}},
        {"options": {"step": 32, "important_ratio": 1.0}, "method": "vispruner", "tokens": None},
    ],
    [{"tokens": 64}],
    [{"tokens": 65}],
    [{"tokens": 64, "method": "attention"}],
    [
        {"tokens": 64, "method": "random"},
        {"tokens": 64, "method": "random", "options": {"seed": 0}},
    ],
    [{"tokens": 64, "method": "random", "options": {"seed": -(1 << 63)}}],
    [{"rate": 1 / 3}],
    [{"rate": 1 / 3 + 1e-16}],
]


def test_the_canonical_text_is_the_same_for_the_same_settings_and_only_for_them() -> None:
    texts = [{PruneConfig.parse(data).canonical() for data in group} for group in SAME]
    assert all(len(group) == 1 for group in texts)
    assert len(set.union(*texts)) == len(SAME)


@pytest.mark.parametrize("group", SAME, ids=str)
def test_the_canonical_text_reads_back_as_the_same_settings(group) -> None:
    config = PruneConfig.parse(group[-1])
    back = PruneConfig.from_canonical(config.canonical())
    assert back.canonical() == config.canonical()
    assert (back.method, back.rate, back.tokens) == (config.method, config.rate, config.tokens)
    assert back.resolved == config.resolved


def test_the_canonical_text_is_json_without_what_is_not_set() -> None:
    assert json.loads(PruneConfig.parse({"tokens": 9, "method": "uniform"}).canonical()) == {
        "method": "uniform",
        "tokens": 9,
        "floor": "text",
        "options": {},
        "crop_budget": "joint",
        "importance": "attention",
        "positions": "original",
        "grounding": "off",
    }


def test_the_canonical_text_is_the_same_in_another_process() -> None:
    """Hash seeds differ between processes; a cache shared by them must not notice."""
    program = (
        "from vllm_pruner.settings.config import PruneConfig;"
        "options = {'step': 4, 'important_ratio': 0.1};"
        "print(PruneConfig.parse({'method': 'vispruner', 'options': options}).canonical())"
    )
    options = {"important_ratio": 0.1, "step": 4}
    expected = PruneConfig.parse({"method": "vispruner", "options": options}).canonical()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == expected


def test_settings_do_not_change_once_made() -> None:
    config = PruneConfig.parse({"rate": 0.5})
    with pytest.raises(ValidationError, match="frozen"):
        config.rate = 0.75


def test_a_copy_with_other_values_has_a_text_of_its_own() -> None:
    """Both are reckoned once for each settings object, and identities in all caches hang on it."""
    config = PruneConfig.parse({"rate": 0.5, "options": {"alpha": 0.75}})
    before, plain = config.canonical(), config.unfloored
    other = config.model_copy(update={"rate": 0.25})
    assert other.canonical() != before == config.canonical()
    assert other.unfloored.rate == 0.25
    assert plain.floor == "off"
    assert PruneConfig.from_canonical(other.canonical()).canonical() == other.canonical()
