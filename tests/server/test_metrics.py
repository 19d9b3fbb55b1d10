"""What vtprune did is on vLLM's own /metrics: from the API server and from the engine's worker."""

from __future__ import annotations

from typing import Any

import pytest
from media import PHOTOS, image_part, photo_question, text_part
from vllm_server import Server

pytestmark = pytest.mark.server

ADAFV = {"mm_processor_kwargs": {"vtprune": {"method": "adafv"}}}


def _change(server: Server, before: dict[str, float]) -> dict[str, float]:
    """What /metrics counted since `before`, without what stayed as it was."""
    after = server.metrics("vtprune_")
    change = {name: value - before.get(name, 0.0) for name, value in after.items()}
    return {name: value for name, value in change.items() if value}


def test_eight_questions_about_one_image_are_one_miss_and_seven_hits(pruned: Server) -> None:
    pruned.forget()
    before = pruned.metrics("vtprune_")
    for number in range(8):
        pruned.text(photo_question(2, f"Question {number}?"), **ADAFV)
    change = _change(pruned, before)
    assert change.pop('vtprune_tower_seconds_total{engine="0"}') > 0
    assert change.pop('vtprune_selection_seconds_total{engine="0",method="adafv"}') > 0
    assert change.pop('vtprune_prefill_seconds_saved_total{engine="0",method="adafv"}') > 0
    change.pop('vtprune_feature_cache_bytes{engine="0"}', None)
    assert not any("shadow" in name for name in change), "they are off by default"
    assert change == {
        'vtprune_feature_cache_hits_total{engine="0"}': 7,
        'vtprune_feature_cache_misses_total{engine="0"}': 1,
        'vtprune_requests_total{method="adafv"}': 8,
        'vtprune_images_total{method="adafv"}': 8,
        'vtprune_visual_tokens_original_total{method="adafv"}': 8 * 576,
        'vtprune_visual_tokens_kept_total{method="adafv"}': 8 * 64,
    }


def test_what_is_unpruned_refused_or_without_text_is_counted_as_such(pruned: Server) -> None:
    pruned.forget()
    before = pruned.metrics("vtprune_")
    image = image_part(PHOTOS[1].read_bytes())
    pruned.ask([image, text_part("What?")], mm_processor_kwargs={"vtprune": {"rate": 0}})
    pruned.ask([image], **ADAFV)
    refused: dict[str, Any] = {"vtprune": {"rate": 1.5}}
    assert pruned.post([image], mm_processor_kwargs=refused).status_code == 400
    assert pruned.post([image], **refused).status_code == 400
    change = _change(pruned, before)
    assert change['vtprune_images_total{method="none"}'] == 1
    assert change['vtprune_visual_tokens_kept_total{method="none"}'] == 576
    assert change["vtprune_no_text_total"] == 1
    assert change["vtprune_refusals_total"] == 2


def _conversation(subject: str, turns: int) -> list[dict[str, Any]]:
    words = "Take your time, look at every corner of it and leave nothing out of your answer. " * 4
    content = photo_question(3, f"Let us speak about the {subject}. {words}")
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    for turn in range(1, turns):
        messages.append({"role": "assistant", "content": f"Of the {subject}: {turn}."})
        messages.append({"role": "user", "content": f"Turn {turn} on the {subject}. {words}"})
    return messages


def test_two_conversations_about_one_image_interleaved(pruned: Server) -> None:
    """Each finds its own tokens and KV again, and both the same features."""
    talks = ("foreground", "background")
    turns = [(subject, count) for count in range(1, 5) for subject in talks]

    def ask(subject: str, count: int) -> tuple[str, int]:
        answer = pruned.ask("", messages=_conversation(subject, count), **ADAFV)
        return answer["choices"][0]["message"]["content"], answer["usage"]["prompt_tokens"]

    alone = {}
    for subject in talks:
        pruned.forget()
        alone.update({(subject, count): ask(subject, count) for count in range(1, 5)})
    pruned.forget()
    before = pruned.metrics("vtprune_")
    hits = pruned.metric("vllm:prefix_cache_hits_total")
    assert {turn: ask(*turn) for turn in turns} == alone
    change = _change(pruned, before)
    assert change['vtprune_feature_cache_misses_total{engine="0"}'] == 1
    assert change['vtprune_feature_cache_hits_total{engine="0"}'] == 1
    # Turns 2 to 4 of both find the whole blocks of their own turn before.
    known = sum(alone[subject, count][1] // 128 * 128 for subject in talks for count in (1, 2, 3))
    assert pruned.metric("vllm:prefix_cache_hits_total") - hits >= known


def test_without_the_plugin_there_is_nothing_of_it(stock: Server) -> None:
    stock.text(photo_question(0))
    assert stock.metrics("vtprune") == {}
