"""Rates that a server moves between: which they are, and what stops a start."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.load import ladder
from vllm_pruner.settings.moving import least_fault
from vllm_pruner.settings.rules import image_configs
from vllm_pruner.settings.server import ServerConfig


@pytest.mark.parametrize(("rate", "most"), [(0.0, 8 / 9), (0.5, 0.9), (0.75, 0.75)])
def test_steps_part_what_is_kept_in_equal_ratios(rate: float, most: float) -> None:
    rates = ladder(rate, most)
    assert (rates[0], rates[-1]) == (rate, most)
    assert list(rates) == sorted(set(rates))
    ratios = [(1 - b) / (1 - a) for a, b in zip(rates, rates[1:], strict=False)]
    assert ratios == pytest.approx(ratios[:1] * len(ratios), rel=1e-3)
    assert len(rates) == (1 if rate == most else 4)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"rate": 0.9, "rate_under_load": 0.5},
            "rate_under_load is 0.5 and rate is 0.9; allowed: a rate that is not below the second",
        ),
        (
            {"tokens": 64, "rate_under_load": 0.9},
            "rate_under_load is 0.9 and tokens is 64; allowed: a rate in place of the second",
        ),
        (
            {"rate": 0.5, "rate_under_load": 0.9, "limits": {"max_rate": 0.8}},
            "rate_under_load is 0.9; allowed: rates up to 0.8, by limits",
        ),
        (
            {"tokens": 64, "shadow": 0.1, "shadow_bound": 0.9},
            "shadow_bound is 0.9 and tokens is 64; allowed: a rate in place of the second",
        ),
        (
            {"rate": 0.5, "shadow_bound": 0.9},
            "shadow_bound is 0.9 and shadow is 0; allowed: a shadow above 0",
        ),
    ],
    ids=str,
)
def test_what_cannot_move_stops_the_start(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        ServerConfig.parse(settings)
    assert str(raised.value) == sentence


def test_a_rate_under_load_may_be_the_rate_itself() -> None:
    assert ServerConfig.parse({"rate": 0.5, "rate_under_load": 0.5}).rate_under_load == 0.5


def test_the_default_rate_is_not_known_before_the_family_is() -> None:
    """1/2 of other families than LLaVA is below this; 8/9 is not."""
    assert ServerConfig.parse({"rate_under_load": 0.8}).rate_under_load == 0.8


def test_the_highest_rate_keeps_what_images_keep_at_least() -> None:
    settings = {"rate": 0.5, "rate_under_load": 0.9, "limits": {"min_tokens": 64}}
    config = ServerConfig.parse(settings)
    fault = least_fault(config.limits, config, config.rate_under_load, 576)
    assert "rate_under_load is 0.9, which keeps 58 of an image's 576 tokens" in str(fault)
    assert least_fault(config.limits, config, config.rate_under_load, 1024) is None


@pytest.mark.parametrize(
    ("requested", "kept"),
    [
        (None, [29, 29]),
        ({"method": "attention"}, [29, 29]),
        ({"rate": 0.5}, [288, 288]),
        ({"tokens": 9}, [9, 9]),
        ({"request_tokens": 100}, [50, 50]),
        ({"detail": ["high", "auto"]}, [288, 29]),
    ],
    ids=str,
)
def test_only_who_names_no_budget_has_the_rate_of_the_moment(requested: Any, kept: Any) -> None:
    server = ServerConfig.parse({"rate": 0.5, "rate_under_load": 0.95})
    configs = image_configs(server, requested, [576, 576], 576, rate=0.95)
    assert [config.keep_count(576) for config in configs] == kept


def test_a_server_whose_rate_stays_has_the_settings_that_it_had() -> None:
    plain, moving = ({"rate": 0.5}, {"rate": 0.5, "rate_under_load": 0.9})
    texts = {ServerConfig.parse(each).images.canonical() for each in (plain, moving)}
    assert len(texts) == 1 and "load" not in texts.pop()
