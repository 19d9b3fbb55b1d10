"""What a stranger writes, and what it is told to write instead."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_pruner import methods
from vllm_pruner.settings.advice import nearest
from vllm_pruner.settings.cli import FLAGS
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import ConfigError, SettingError
from vllm_pruner.settings.server import ServerConfig

OFF = "to turn pruning off write rate 0"


def _told(data: object) -> str:
    with pytest.raises(ConfigError) as caught:
        PruneConfig.parse(data)
    return caught.value.at_request()


@pytest.mark.parametrize(
    ("data", "end"),
    [
        ({"rate": 90}, "rate is 90; it should be less than 1; for 90 % write 0.9"),
        ({"rate": 87.5}, "; for 87.5 % write 0.875"),
        ({"rate": "90%"}, "; for 90 % write 0.9"),
        ({"rate": "0.9"}, "; write 0.9, without quotes"),
        ({"tokens": "64"}, "; write 64, without quotes"),
        ({"tokens": 0.25}, "; for a share of an image write rate 0.75"),
        ({"rate": "off"}, f"; {OFF}"),
        ({"rate": False}, f"; {OFF}"),
        ({"method": "off"}, f"; {OFF}"),
        ({"method": "None"}, f"; {OFF}"),
        ({"method": False}, f"; {OFF}"),
        ({"enabled": False}, f"; {OFF}"),
        (False, "; to turn pruning off: {'rate': 0}"),
        ("off", "; to turn pruning off: {'rate': 0}"),
        ({"keep_ratio": 0.25}, "; rate is what is removed, 1 - keep_ratio, here 0.75"),
        ({"retention_ratio": "x"}, "; rate is what is removed, 1 - retention_ratio"),
        ({"keep": 0.1}, "; rate is what is removed, 1 - keep, here 0.9"),
        ({"method": "vispuner"}, "; the nearest is vispruner"),
        ({"method": "AdaFV"}, "; the nearest is adafv"),
        ({"method": "prumerge_plus"}, "; the nearest is prumerge+"),
        ({"video_method": "evz"}, "; the nearest is evs"),
        ({"video_method": "off"}, "; to turn pruning off write video_rate 0"),
        ({"video_rate": "off"}, "; to turn pruning off write video_rate 0"),
        ({"video_rate": 90}, "; for 90 % write 0.9"),
        (
            {"video_keep_ratio": 0.5},
            "; video_rate is what is removed, 1 - video_keep_ratio, here 0.5",
        ),
        ({"metod": "adafv"}, "; the nearest is method"),
        ({"prune_rate": 0.5}, "; the nearest is rate"),
        ({"pruning-rate": 0.5}, "; the nearest is rate"),
        ({"options": {"alfa": 0.5}}, "; the nearest is alpha"),
        ({"options": {"step": 4}}, "; method vispruner has it"),
        ({"options": {"reserve": 0}}, "; method adafv or adafv-ref has it"),
    ],
    ids=str,
)
def test_what_was_meant_is_said(data: Any, end: str) -> None:
    assert _told(data).endswith(end)


@pytest.mark.parametrize(
    "data",
    [
        {"rate": 1},
        {"rate": 2},
        {"rate": 100},
        {"rate": -90},
        {"rate": True},
        {"rate": "much"},
        {"rate": "nan"},
        {"tokens": 2.5},
        {"tokens": "2.5"},
        {"tokens": 0},
        {"method": "qwertyuiop"},
        {"colour": 1},
        {"options": {"stride": 8}},
        0.5,
    ],
    ids=str,
)
def test_nothing_is_said_where_it_is_not_plain(data: Any) -> None:
    told = _told(data)
    assert told.count(";") == 1
    assert not any(word in told for word in ("nearest", "write", "off:"))


def test_an_operator_is_told_flags() -> None:
    with pytest.raises(SettingError) as caught:
        ServerConfig.parse({"rate": "off"})
    told = caught.value.at_start(FLAGS)
    assert told.endswith("; to turn pruning off write --prune-rate 0")
    with pytest.raises(SettingError) as caught:
        ServerConfig.parse({"options": {"step": 4}})
    assert caught.value.at_start(FLAGS).endswith("; --prune-method vispruner has it")


def test_the_nearest_is_one_that_is_allowed() -> None:
    with pytest.raises(SettingError) as caught:
        ServerConfig.parse({"method": "vispruner", "limits": {"methods": ["visionzip"]}})
    assert caught.value.at_request().endswith("allowed here: visionzip")


@pytest.mark.parametrize("name", methods.names())
def test_every_method_is_the_nearest_to_itself_with_a_slip(name: str) -> None:
    assert nearest(name[:-1] + "_", methods.names()) == name
    assert nearest(name.upper(), methods.names()) == name


def test_a_long_name_is_compared_by_its_beginning() -> None:
    """A body may have one of megabytes, which took seconds whole."""
    known = "y" * 64
    assert nearest(known + "x" * 10_000_000, [known]) == known
    assert nearest("x" * 10_000_000, methods.names()) is None
