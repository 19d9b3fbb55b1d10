"""Whether a server prunes what its requests do not ask it to."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_pruner.settings.server import ServerConfig


@pytest.mark.parametrize(
    ("settings", "prunes"),
    [
        ({"rate": 0.5}, True),
        ({"tokens": 9}, True),
        ({"request_tokens": 99}, True),
        ({"rate": 0.0}, False),
        ({"rate": 0.0, "video_rate": 0.0}, False),
        ({"rate": 0.5, "video_rate": 0.0}, True),
        ({"rate": 0.0, "video_rate": 0.5}, True),
        ({"rate": 0.0, "rate_under_load": 0.5}, True),
        ({"rate": 0.0, "detail": {"low": 0.9}}, False),
    ],
    ids=str,
)
def test_a_server_prunes_unasked_if_images_or_videos_have_a_budget_or_may_get_one(
    settings: dict[str, Any], prunes: bool
) -> None:
    assert ServerConfig.parse(settings).prunes == prunes
