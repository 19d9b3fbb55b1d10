"""No video is pruned by vLLM and by vtprune."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import SettingError
from vllm_pruner.settings.in_tree import InTree, check_owner

IN_TREE = InTree(0.75, "vidcom2")


@pytest.mark.parametrize("given", [{}, {"video_rate": 0.5}, {"rate": 0.0}], ids=str)
def test_the_operator_says_that_videos_are_left_to_vllm(given: dict[str, Any]) -> None:
    found = IN_TREE.start_fault(PruneConfig.parse(given))
    assert found is not None
    said = given.get("video_rate", "not set")
    assert str(found) == (
        f"video_pruning_rate is 0.75 and video_rate is {said}; allowed: 0 for one of the two; "
        "to have vLLM prune videos and vtprune images: video_rate 0"
    )
    assert IN_TREE.start_fault(PruneConfig.parse({**given, "video_rate": 0.0})) is None


@pytest.mark.parametrize(
    ("requested", "said"),
    [
        ({"video_rate": 0.5}, "video_rate is 0.5, but vLLM prunes the videos of this server, by "),
        ({"video_rate": 0.0, "video_method": "evs"}, "video_method is 'evs', but vLLM prunes the "),
    ],
    ids=["rate", "method"],
)
def test_a_request_cannot_have_videos_pruned_again(requested: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError) as raised:
        check_owner(IN_TREE, requested)
    assert raised.value.at_request().startswith(said)
    assert "vidcom2 at 0.75" in str(raised.value)
    check_owner(None, requested)


@pytest.mark.parametrize(
    "requested", [None, {}, {"rate": 0.5}, {"video_rate": 0.0}, {"video_rate": None}], ids=str
)
def test_what_says_nothing_of_videos_is_taken(requested: object) -> None:
    check_owner(IN_TREE, requested)
