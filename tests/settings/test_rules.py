"""What one request asks for, image by image, and how far the operator lets it go."""

from __future__ import annotations

import pytest

from vllm_pruner.settings.again import UNPRUNED
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.defaults import DEFAULT_METHOD
from vllm_pruner.settings.errors import ConfigError, SettingError
from vllm_pruner.settings.rules import check, image_configs, resolve
from vllm_pruner.settings.server import ServerConfig

N = 576
BOUNDED = {
    "rate": 0.75,
    "limits": {
        "min_rate": 0.5,
        "max_rate": 0.9,
        "methods": [DEFAULT_METHOD, "adafv"],
        "min_tokens": 64,
    },
}


def kept(server: object, requested: object, *tokens: int) -> list[int]:
    configs = image_configs(ServerConfig.parse(server), requested, tokens, N)
    return [config.keep_count(count) for config, count in zip(configs, tokens, strict=True)]


@pytest.mark.parametrize(
    "server, requested, counts",
    [
        ({}, None, [64, 64, 64]),
        ({}, {}, [64, 64, 64]),
        ({}, {"rate": 0}, [576, 576, 576]),
        ({}, {"detail": ["low", "auto", "high"]}, [29, 64, 288]),
        ({}, {"tokens": 100, "detail": ["low", "auto", "high"]}, [29, 100, 288]),
        # low never keeps more than auto, high never less
        ({"tokens": 10}, {"detail": ["low", "auto", "high"]}, [10, 10, 288]),
        ({"rate": 0.1}, {"detail": ["low", "auto", "high"]}, [29, 518, 518]),
        ({"rate": 0}, {"detail": ["low", "auto", "high"]}, [29, 576, 576]),
        ({"detail": {"low": 0.75, "high": 0}}, {"detail": ["low", "auto", "high"]}, [64, 64, 576]),
        # original keeps all, and is never below high
        ({}, {"detail": ["original", "auto", "high"]}, [576, 64, 288]),
        ({}, {"tokens": 8, "detail": ["original", "auto", "low"]}, [576, 8, 8]),
        ({"detail": {"original": 0.75}}, {"detail": ["original", "high", "low"]}, [288, 288, 29]),
        ({"limits": {"min_rate": 0.6}}, {"detail": ["original", "auto", "high"]}, [230, 64, 230]),
        # the rates of detail stay within the limits
        (BOUNDED, {"detail": ["low", "auto", "high"]}, [64, 144, 288]),
        ({"limits": {"min_rate": 0.6}}, {"detail": ["auto", "auto", "high"]}, [64, 64, 230]),
    ],
    ids=str,
)
def test_every_image_has_its_own_settings(server, requested, counts) -> None:
    assert kept(server, requested, N, N, N) == counts


def test_a_small_image_may_keep_all_that_it_has() -> None:
    server = {"limits": {"min_tokens": 64}}
    assert kept(server, {"tokens": 64}, 40) == [40]
    assert kept(server, {"rate": 0, "detail": ["low"]}, 40) == [40]


@pytest.mark.parametrize(
    "server, requested, sentence",
    [
        ({}, {"tokens": 577}, "tokens is 577; allowed: 1 to 576"),
        ({}, {"rate": 2}, "rate is 2; it should be less than 1"),
        ({}, 0.5, "settings are 0.5; allowed: an object such as {'rate': 0.9}"),
        ({}, {"detail": "low"}, "detail is 'low'; allowed: a list of auto, low, high, original"),
        (
            {},
            {"detail": ["tiny"]},
            "detail is ['tiny']; allowed: a list of auto, low, high, original",
        ),
        ({}, {"detail": ["low"] * 2}, "detail has 2 entries; allowed: one for each of 1"),
        (BOUNDED, {"rate": 0}, "rate is 0; allowed here: rates from 0.5 to 0.9"),
        (BOUNDED, {"rate": 0.95}, "rate is 0.95; allowed here: rates from 0.5 to 0.9"),
        (
            {"limits": {"min_rate": 0.2}},
            {"rate": 0.1},
            "rate is 0.1; allowed here: rates from 0.2 to below 1",
        ),
        (BOUNDED, {"tokens": 63}, "tokens is 63; allowed here: 64 or more"),
        (
            BOUNDED,
            {"tokens": 300},
            "tokens is 300, which removes 0.4792 of an image's 576; "
            "allowed here: rates from 0.5 to 0.9",
        ),
        (
            BOUNDED,
            {"rate": 0.9},
            "rate is 0.9, which keeps 58 of an image's 576 tokens; allowed here: 64 or more",
        ),
        (
            BOUNDED,
            {"method": "random"},
            f"method is 'random'; allowed here: {DEFAULT_METHOD}, adafv",
        ),
    ],
    ids=str,
)
def test_what_is_out_of_bounds_gets_one_sentence(server, requested, sentence) -> None:
    with pytest.raises(ConfigError) as raised:
        image_configs(ServerConfig.parse(server), requested, [N], N)
    assert raised.value.at_request() == sentence


def test_a_request_that_asks_for_nothing_is_never_out_of_bounds() -> None:
    server = {"rate": 0.75, "limits": {"min_tokens": 200}}
    assert kept(server, None, N) == [144]
    assert kept(server, {"detail": ["auto"]}, N) == [144]


class Shrinkless:
    """A model whose largest image has N tokens, and which leaves no image to be shrunk."""

    prune_config = ServerConfig.parse(BOUNDED | {"limits": {"min_tokens": 64}})

    def get_max_image_tokens(self) -> int:
        return N

    def fault(self, config: PruneConfig) -> ConfigError | None:
        return SettingError("method", "'resize'", "others") if config.method == "resize" else None


def test_what_is_answered_again_unpruned_is_so_whatever_the_operator_allows() -> None:
    assert [config.off for config in resolve(Shrinkless(), UNPRUNED, [None, N])] == [True, True]
    with pytest.raises(ConfigError, match="rate is 0; allowed: rates from 0.5"):
        check(ServerConfig.parse(BOUNDED), {"rate": 0})


def test_an_image_of_unknown_size_is_judged_as_the_largest() -> None:
    configs = resolve(Shrinkless(), {"rate": 0.875}, [None, N])
    assert [config.keep_count(N) for config in configs] == [72, 72]
    with pytest.raises(ConfigError, match="rate is 0.9, which keeps 58 of an image's 576 tokens"):
        resolve(Shrinkless(), {"rate": 0.9}, [None])


@pytest.mark.parametrize(
    "requested, sentence",
    [
        ({"method": "resize"}, "method is 'resize'; allowed: others"),
        ({"method": "resize", "tokens": 9}, "tokens is 9; allowed here: 64 or more"),
        ({"tokens": N + 1}, "tokens is 577; allowed: 1 to 576"),
    ],
    ids=str,
)
def test_the_operator_and_the_model_may_both_refuse(requested, sentence) -> None:
    with pytest.raises(ConfigError) as raised:
        resolve(Shrinkless(), requested, [N])
    assert raised.value.at_request() == sentence


def test_settings_are_checked_without_an_image_too() -> None:
    with pytest.raises(ConfigError) as raised:
        check(ServerConfig.parse(BOUNDED), {"rate": 0.1})
    assert raised.value.at_request() == "rate is 0.1; allowed here: rates from 0.5 to 0.9"


@pytest.mark.parametrize(
    "server, sentence",
    [
        (
            {"rate": 0.95, "limits": {"max_rate": 0.9}},
            "rate is 0.95; allowed: rates from 0 to 0.9, by limits",
        ),
        (
            {"method": "random", "limits": {"methods": ["adafv"]}},
            "method is 'random'; allowed: adafv, by limits",
        ),
        (
            {"limits": {"min_rate": 0.9, "max_rate": 0.5}},
            "limits.min_rate is 0.9 and limits.max_rate is 0.5; allowed: the first at most the "
            "second",
        ),
        ({"limits": {"max_rate": 1}}, "limits.max_rate is 1; it should be less than 1"),
        (
            {"limits": {"rate": 1}},
            "limits.rate is 1 but there is no such key; "
            "allowed: min_rate, max_rate, methods, min_tokens, max_pixels, max_video_pixels, "
            "max_side_ratio",
        ),
        ({"detail": {"low": 2}}, "detail.low is 2; it should be less than 1"),
        (
            {"detail": {"auto": 0.5}},
            "detail.auto is 0.5 but there is no such key; allowed: low, high, original",
        ),
    ],
    ids=str,
)
def test_bad_bounds_stop_the_server(server, sentence) -> None:
    with pytest.raises(ConfigError) as raised:
        ServerConfig.parse(server)
    assert str(raised.value) == sentence
