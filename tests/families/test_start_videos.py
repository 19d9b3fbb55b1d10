"""Settled when a server starts: what happens to videos."""

from __future__ import annotations

from typing import Any

import pytest
from started import engine_arguments

from vllm_pruner import compat
from vllm_pruner.settings import cli
from vllm_pruner.settings.errors import ConfigError

pytestmark = pytest.mark.server
older = pytest.mark.skipif(not compat.encoder_graphs_known(), reason="another vLLM, 0.31")


@pytest.mark.parametrize(
    ("model", "settings", "sentence"),
    [
        ("demo", {"video_method": "evs"}, "video_method is 'evs', but videos of llava cannot"),
        ("demo", {"video_rate": 0.5}, "video_rate is 0.5, but videos of llava cannot be pruned"),
        ("demo-qwen2.5", {"video_method": "resize"}, "video_method is 'resize', which shrinks the"),
        ("demo-qwen4", {"video_method": "evs"}, "video_method is 'evs', which has the times of a"),
        (
            "demo-qwen3",
            {"video_method": "pixels"},
            "video_method is 'pixels', which looks for what",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_model_cannot_do_with_videos_stops_the_start(
    model: str, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        engine_arguments(model, settings).create_model_config()
    assert str(raised.value).startswith(sentence)


@older
@pytest.mark.parametrize("model", ["demo-qwen2.5", "demo-qwen3", "demo-qwen3-moe"])
@pytest.mark.parametrize(("video_rate", "said"), [(None, "not set"), (0.25, "0.25")])
def test_videos_are_pruned_by_one_of_the_two(
    model: str, video_rate: float | None, said: str
) -> None:
    settings = {} if video_rate is None else {"video_rate": video_rate}
    with pytest.raises(ConfigError) as raised:
        engine_arguments(model, settings, video_pruning_rate=0.5).create_model_config()
    assert raised.value.at_start(cli.FLAGS) == (
        f"video_pruning_rate is 0.5 and --prune-video-rate is {said}; "
        "allowed: 0 for one of the two; "
        "to have vLLM prune videos and vtprune images: --prune-video-rate 0"
    )
    assert engine_arguments(
        model, {"video_rate": 0.0}, video_pruning_rate=0.5
    ).create_model_config()


@older
def test_videos_that_stay_whole_may_be_vllms_to_prune() -> None:
    flags: dict[str, Any] = {"video_pruning_rate": 0.5, "trust_remote_code": True}
    with pytest.raises(ConfigError, match="^video_pruning_rate is 0.5 and video_rate is not set"):
        engine_arguments("demo-nemotron", {}, **flags).create_model_config()
    with pytest.raises(ConfigError, match="^video_pruning_rate is 0.5, but beside vtprune this vL"):
        engine_arguments("demo-gemma4", {"video_rate": 0.0}, **flags).create_model_config()
    whole = engine_arguments("demo-nemotron", {"video_rate": 0.0}, **flags)
    assert whole.create_model_config()


def test_what_it_can_do_is_taken() -> None:
    for model, settings in (
        ("demo-glm4v", {"video_rate": 0.0}),
        ("demo-qwen3", {"video_method": "divprune", "video_rate": 0.25}),
        ("demo-qwen2.5", {"video_method": "vidcom2"}),
        ("demo-qwen3", {"video_method": "evs"}),
    ):
        config: Any = engine_arguments(model, settings).create_model_config().multimodal_config
        expected = {**settings, "method": "vispruner", "rate": 0.5}
        assert config.mm_processor_kwargs["vtprune"] == expected
