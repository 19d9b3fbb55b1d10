"""Grounding: true positions, and as many tokens as boxes need."""

from __future__ import annotations

import pytest

from vllm_pruner.picture import Picture
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.rules import check, image_configs
from vllm_pruner.settings.server import ServerConfig

SIZES = [300, 1500, 4000]
PAGE = Picture(0.8, 0.1)


def kept(server: object, requested: object) -> list[int]:
    pictures = [PAGE] * len(SIZES)
    config = ServerConfig.parse(server)
    configs = image_configs(config, requested, SIZES, max(SIZES), lambda: pictures)
    assert {each.grounding for each in configs} == {"off"}
    return [each.keep_count(count) for each, count in zip(configs, SIZES, strict=True)]


@pytest.mark.parametrize(
    ("server", "requested", "counts"),
    [
        ({"rate": 0.5, "floor": "off"}, {"grounding": "on"}, [300, 1024, 2000]),
        ({"rate": 0.5, "floor": "off", "grounding": "on"}, None, [300, 1024, 2000]),
        ({"tokens": 64, "floor": "off", "grounding": "on"}, {}, [300, 1024, 1024]),
        ({"rate": 0.5, "grounding": "on"}, {}, [300, 1350, 3600]),
        ({"rate": 0.5, "grounding": "on"}, {"grounding": "off", "rate": 0.5}, [150, 750, 2000]),
        ({}, {"grounding": "forced", "rate": 0.5}, [150, 750, 2000]),
        ({}, {"grounding": "on", "tokens": 1024}, [300, 1024, 1024]),
        ({"grounding": "on"}, {"rate": 0.0}, SIZES),
        ({"grounding": "on"}, {"detail": ["low"] * 3}, [300, 1024, 1024]),
        ({}, {"grounding": "on", "request_tokens": 9000}, SIZES),
    ],
    ids=str,
)
def test_an_image_keeps_what_boxes_need(server, requested, counts) -> None:
    assert kept(server, requested) == counts


@pytest.mark.parametrize(
    ("server", "requested", "sentence"),
    [
        (
            {},
            {"grounding": "on", "rate": 0.5},
            "grounding is 'on' but 150 of an image's 300 tokens are kept; allowed: 'forced', or a "
            "budget that keeps 300 of it",
        ),
        (
            {"grounding": "on"},
            {"tokens": 1000},
            "grounding is 'on' but 1000 of an image's 1500 tokens are kept; allowed: 'forced', or "
            "a budget that keeps 1024 of it",
        ),
        (
            {"limits": {"min_rate": 0.5}, "rate": 0.5},
            {"grounding": "on"},
            "tokens is 300, which removes 0.0000 of an image's 300; allowed here: rates from 0.5 "
            "to below 1",
        ),
        (
            {},
            {"grounding": "on", "positions": "compact"},
            "positions is 'compact' and grounding is 'on'; allowed: original",
        ),
        (
            {},
            {"grounding": True},
            "grounding is True; it should be 'off', 'on' or 'forced'",
        ),
    ],
    ids=str,
)
def test_a_budget_too_small_and_other_positions_are_refused(server, requested, sentence) -> None:
    with pytest.raises(ConfigError) as raised:
        kept(server, requested)
    assert raised.value.at_request() == sentence


def test_one_budget_for_all_images_is_not_exceeded() -> None:
    with pytest.raises(ConfigError, match="grounding is 'on' but"):
        kept({"request_tokens": 3000}, {"grounding": "on"})


def test_it_brings_the_positions_of_the_picture() -> None:
    server = ServerConfig.parse({"positions": "compact"})
    assert check(server, {"grounding": "on"}).positions == "original"
    assert check(server, {"rate": 0.5}).positions == "compact"
    with pytest.raises(ConfigError, match="positions is 'compact' and grounding is 'forced'"):
        ServerConfig.parse({"positions": "compact", "grounding": "forced"})


def test_the_same_count_is_the_same_image_to_every_cache() -> None:
    server = ServerConfig.parse({})
    (one,) = image_configs(server, {"grounding": "on", "tokens": 1200}, [1500], 1500)
    (other,) = image_configs(server, {"tokens": 1200}, [1500], 1500)
    assert one.canonical() == other.canonical()
    assert PruneConfig.parse({"grounding": "on"}).canonical() != PruneConfig.parse({}).canonical()
