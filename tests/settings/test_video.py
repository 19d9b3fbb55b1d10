"""What is said of videos beside images."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_pruner import methods
from vllm_pruner.settings.again import UNPRUNED
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.defaults import DEFAULT_METHOD
from vllm_pruner.settings.errors import ConfigError, SettingError
from vllm_pruner.settings.rules import check
from vllm_pruner.settings.server import ServerConfig
from vllm_pruner.settings.video_rules import check_video, resolve_videos


@pytest.mark.parametrize(
    ("said", "method", "rate", "tokens"),
    [
        ({"rate": 0.5}, DEFAULT_METHOD, 0.5, None),
        ({"tokens": 9}, DEFAULT_METHOD, None, 9),
        ({"tokens": 9, "video_rate": 0.75}, DEFAULT_METHOD, 0.75, None),
        ({"rate": 0.5, "video_method": "evs"}, "evs", 0.5, None),
        ({"rate": 0.0, "video_rate": 0.9, "video_method": "adafv"}, "adafv", 0.9, None),
    ],
)
def test_a_video_has_the_settings_of_images_but_for_its_own(
    said: dict[str, Any], method: str, rate: float | None, tokens: int | None
) -> None:
    config = PruneConfig.parse(said)
    video, image = config.of_video(), config.of_image()
    assert (video.method, video.rate, video.tokens) == (method, rate, tokens)
    assert (image.method, image.rate, image.tokens) == (
        DEFAULT_METHOD,
        said.get("rate"),
        said.get("tokens"),
    )
    for each in (video, image):
        assert PruneConfig.from_canonical(each.canonical()).canonical() == each.canonical()
        assert "video" not in each.canonical()


def test_options_are_of_the_method_that_has_them() -> None:
    config = PruneConfig.parse(
        {"method": "vispruner", "options": {"important_ratio": 0.75}, "video_method": "vidcom2"}
    )
    assert config.of_image().options == {"important_ratio": 0.75}
    assert config.of_video().options == {}
    same = PruneConfig.parse({"options": {"alpha": 0.5}, "video_method": DEFAULT_METHOD})
    assert same.of_video().options == {"alpha": 0.5}


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"method": "evs"}, f"method is 'evs'; allowed: {', '.join(methods.names())}"),
        ({"video_method": "magic"}, "video_method is 'magic'; allowed: adafv, "),
        ({"video_rate": 1.0}, "video_rate is 1.0; it should be less than 1"),
    ],
)
def test_what_cannot_be_is_refused(said: dict[str, Any], fault: str) -> None:
    for parse in (PruneConfig.parse, ServerConfig.parse):
        with pytest.raises(ConfigError) as error:
            parse(said)
        assert str(error.value).startswith(fault)


def test_limits_hold_for_videos() -> None:
    limits = {"min_rate": 0.2, "max_rate": 0.8, "methods": ["adafv"], "min_tokens": 5}
    server = ServerConfig.parse(
        {"method": "adafv", "rate": 0.5, "video_method": "divprune", "limits": limits}
    )
    for said, fault in (
        ({"video_rate": 0.0}, "video_rate is 0; allowed here: rates from 0.2 to 0.8"),
        ({"video_rate": 0.9}, "video_rate is 0.9; allowed here: rates from 0.2 to 0.8"),
        ({"video_method": "scope"}, "video_method is 'scope'; allowed here: evs, vidcom2, adafv"),
    ):
        with pytest.raises(ConfigError) as error:
            check(server, said)
        assert error.value.at_request() == fault
    for name in ("evs", "vidcom2", "adafv", "divprune"):
        video = check(server, {"video_method": name}).of_video()
        assert video.method == name
        check_video(server, {"video_method": name}, video, 10)
    video = check(server, {"video_rate": 0.8}).of_video()
    with pytest.raises(ConfigError, match="which keeps 4 of a video's 20 tokens"):
        check_video(server, {"video_rate": 0.8}, video, 20)
    for nothing in (None, {}, {"detail": ["low"]}):
        check_video(server, nothing, video, 20)
    with pytest.raises(ConfigError, match="video_rate is 0.9"):
        ServerConfig.parse({"video_rate": 0.9, "limits": {"max_rate": 0.89}})


class Model:
    """What `resolve_videos` asks of one; this one takes videos by `evs` alone."""

    def __init__(self, **settings: Any) -> None:
        self.prune_config = ServerConfig.parse(settings)

    def get_max_image_tokens(self) -> int:
        return 576

    def fault(self, config: PruneConfig) -> None: ...

    def video_fault(self, config: PruneConfig) -> ConfigError | None:
        return None if config.method == "evs" else SettingError("method", config.method, "evs")


def test_a_fault_names_the_key_that_the_method_came_from() -> None:
    assert resolve_videos(Model(video_method="evs"), None).method == "evs"
    for settings, asked, said in (
        ({}, None, "method is scope; allowed: evs"),
        ({}, {"method": "uniform"}, "method is uniform; allowed: evs"),
        ({"video_method": "evs"}, {"video_method": "vidcom2"}, "video_method is vidcom2; allowed"),
    ):
        with pytest.raises(ConfigError) as error:
            resolve_videos(Model(**settings), asked)
        assert error.value.at_request().startswith(said)


def test_a_dummy_that_cannot_be_pruned_stays_whole() -> None:
    """vLLM profiles memory with one whatever the operator set; a request's video is refused."""
    assert resolve_videos(Model(), None, is_dummy=True).off
    assert not resolve_videos(Model(video_method="evs"), None, is_dummy=True).off
    with pytest.raises(ConfigError):
        resolve_videos(Model(), None)


def test_what_is_answered_again_unpruned_has_whole_videos() -> None:
    assert resolve_videos(Model(), UNPRUNED).off


def test_a_rate_that_moves_is_of_videos_that_have_the_servers() -> None:
    model = Model(rate=0.5, video_method="evs")
    assert resolve_videos(model, None, rate=0.75).rate == 0.75
    assert resolve_videos(model, {"rate": 0.25}, rate=0.75).rate == 0.25
    assert resolve_videos(model, {"video_rate": 0.25}, rate=0.75).rate == 0.25


def test_what_images_share_is_not_for_videos() -> None:
    model = Model(request_tokens=100, video_method="evs")
    with pytest.raises(ConfigError) as error:
        resolve_videos(model, None)
    assert str(error.value) == (
        "request_tokens is 100, which the images of a message share, but it has a video; "
        "allowed: request_tokens with video_rate"
    )
    video = resolve_videos(model, {"video_rate": 0.25, "detail": ["low"]})
    assert (video.rate, video.tokens, video.request_tokens, video.floor) == (
        0.25,
        None,
        None,
        "off",
    )
