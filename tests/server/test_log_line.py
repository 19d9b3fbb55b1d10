"""The log of a real server: what thousands of requests were, and whether pruning was worth it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from media import photo_question
from vllm_server import Server

from vllm_pruner.settings.defaults import DEFAULT_METHOD

pytestmark = pytest.mark.server

EVERY = 6


@pytest.fixture(scope="module")
def talkative(start_shared: Callable[..., Server]) -> Server:
    return start_shared("talkative", "--plugin", "vtprune", VLLM_VTPRUNE_LOG_EVERY=str(EVERY))


def _lines(server: Server) -> list[dict[str, Any]]:
    parts = [line.partition("vtprune: {") for line in server.log.splitlines()]
    return [json.loads("{" + rest) for _, mark, rest in parts if mark]


def test_a_line_says_what_the_metrics_say(talkative: Server) -> None:
    for number in range(EVERY):
        settings = {"rate": 0} if number == 0 else {"tokens": 64}
        talkative.ask(photo_question(number % 2, f"Question {number}?"), vtprune=settings)
    (line,) = _lines(talkative)
    assert line["requests"] == line["images"] == EVERY
    assert line["visual_tokens_original"] == EVERY * 576
    assert line["visual_tokens_kept"] == 576 + (EVERY - 1) * 64
    assert line["images_by_method"] == {"none": 1, DEFAULT_METHOD: EVERY - 1}
    assert line["tower_seconds"] > 0 and line["selection_seconds"] > 0
    assert line["feature_cache_hits"] + line["feature_cache_misses"] > 0
    assert line["seconds"] > 0


def test_dropping_next_to_nothing_costs_more_than_it_saves(talkative: Server) -> None:
    """575 of 576 tokens kept: a selection for one token."""
    for number in range(3 * EVERY):
        talkative.ask(photo_question(number, f"Which {number}?"), vtprune={"tokens": 575})
    (said,) = [line for line in talkative.log.splitlines() if "costs more than it saves" in line]
    assert "WARNING" in said and f"{DEFAULT_METHOD} costs more than it saves" in said
