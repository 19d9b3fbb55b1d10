"""`adafv` keeps what the question asks for; vLLM's caches never mix two questions up."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from media import PHOTOS, image_part, photo_question, text_part
from vllm_server import Server

pytestmark = pytest.mark.server

ADAFV = {"mm_processor_kwargs": {"vtprune": {"method": "adafv"}}}
LONG = "Say exactly what stands where, beginning on the left and going slowly to the right. " * 3
QUESTIONS = [f"{LONG} {word}?" for word in ("Whiskers", "Rocket", "Coffee", "Grass")]


def _fresh(server: Server, content: Any, **body: Any) -> str:
    server.forget()
    return server.text(content, **ADAFV, **body)


def _kept(server: Server) -> list[list[int]]:
    (record,) = server.rpc("read_probe")
    kept: list[list[int]] = record["kept"]
    return kept


def test_another_question_keeps_other_tokens_of_the_same_image(pruned: Server) -> None:
    pruned.rpc("start_probe")
    for question in QUESTIONS:
        assert pruned.ask(photo_question(0, question), **ADAFV)["usage"]["prompt_tokens"] > 64
    kept = _kept(pruned)
    assert [len(set(tokens)) for tokens in kept] == [64] * len(QUESTIONS)
    assert len(set(map(tuple, kept))) == len(QUESTIONS)


def test_questions_about_one_image_do_not_share_cache_entries(pruned: Server) -> None:
    expected = [_fresh(pruned, photo_question(1, question)) for question in QUESTIONS]
    pruned.forget()
    pruned.rpc("start_probe")
    contents = [photo_question(1, question) for question in QUESTIONS]
    assert [pruned.text(content, **ADAFV) for content in contents] == expected
    assert len(_kept(pruned)) == len(QUESTIONS)
    # Asked again, everything is there: nothing is encoded, and the answers are the same.
    before = pruned.metric("vllm:prefix_cache_hits_total")
    assert pruned.texts_at_once(contents, **ADAFV) == expected
    assert len(_kept(pruned)) == len(QUESTIONS)
    assert pruned.metric("vllm:prefix_cache_hits_total") > before


def test_methods_do_not_share_cache_entries(pruned: Server) -> None:
    content = photo_question(2, LONG)
    expected = _fresh(pruned, content)
    pruned.forget()
    pruned.rpc("start_probe")
    pruned.text(content)
    assert pruned.text(content, **ADAFV) == expected
    assert len(_kept(pruned)) == 2


def _turns(count: int) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": photo_question(3, QUESTIONS[0])}]
    for turn in range(1, count):
        messages.append({"role": "assistant", "content": f"Answer {turn}. {LONG}"})
        messages.append({"role": "user", "content": f"And what else, number {turn}? {LONG}"})
    return messages


def _computed_in_later_turns(server: Server, **body: Any) -> list[int]:
    """Prompt tokens that were not in the prefix cache, in turns two to five of a conversation."""
    server.forget()
    usages = [
        server.ask("", messages=_turns(count), max_tokens=1, **body)["usage"]
        for count in range(1, 6)
    ]
    return [u["prompt_tokens"] - u["prompt_tokens_details"]["cached_tokens"] for u in usages[1:]]


def test_later_turns_find_the_same_image_tokens_in_the_prefix_cache(
    pruned: Server, stock: Server
) -> None:
    """A later turn computes as many tokens as in stock vLLM, exactly: 512 removed tokens are whole
    blocks, so what is left over of a block is the same."""
    pruned.rpc("start_probe")
    computed = _computed_in_later_turns(pruned, **ADAFV)
    assert len(_kept(pruned)) == 1
    assert computed == _computed_in_later_turns(stock)


def test_two_images_in_one_message_and_none_after_the_last(pruned: Server) -> None:
    a, b = (image_part(PHOTOS[index].read_bytes()) for index in (4, 5))
    contents = [
        [a, text_part("Which of them is older?"), b, text_part("Say why.")],
        [text_part("Look at this:"), a],
    ]
    for content in contents:
        expected = _fresh(pruned, content)
        assert pruned.text(content, **ADAFV) == expected


def test_questions_at_once_are_answered_as_alone(pruned: Server) -> None:
    contents = [photo_question(i, question) for question in QUESTIONS for i in range(4)]
    expected = [_fresh(pruned, content) for content in contents]
    pruned.forget()
    assert pruned.texts_at_once(contents, **ADAFV) == expected


def test_beside_requests_without_an_image_and_streamed(pruned: Server) -> None:
    contents = [photo_question(i, QUESTIONS[i]) for i in range(4)]
    contents += [f"Tell me something about the number {number}." for number in range(4)]
    expected = [_fresh(pruned, content) for content in contents]
    pruned.forget()
    assert pruned.texts_at_once(contents, **ADAFV) == expected
    response = pruned.post(contents[0], stream=True, **ADAFV)
    events = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert events.pop() == "[DONE]"
    pieces = [c["delta"].get("content") or "" for e in events for c in json.loads(e)["choices"]]
    assert "".join(pieces) == expected[0]


def test_the_tower_runs_once_for_eight_questions_about_one_image(pruned: Server) -> None:
    pruned.forget()
    pruned.rpc("start_probe")
    contents = [photo_question(6, f"Question {number}?") for number in range(8)]
    one_by_one = [pruned.text(content, **ADAFV) for content in contents]
    for setting in ({"tokens": 20}, {"method": "uniform"}):
        pruned.text(contents[0], mm_processor_kwargs={"vtprune": setting})
    (record,) = pruned.rpc("read_probe")
    assert record["images"] == [1]
    assert len(record["kept"]) == 10
    assert len(set(one_by_one)) > 1
    assert [_fresh(pruned, content) for content in contents] == one_by_one


@pytest.mark.parametrize("megabytes", [0, 1])
def test_answers_do_not_depend_on_the_size_of_the_feature_cache(
    megabytes: int, pruned: Server, start: Callable[..., Server]
) -> None:
    """1 MiB holds three of the demo's images: eight in turn always evict; 0 keeps none."""
    contents = [photo_question(index, question) for question in QUESTIONS for index in range(8)]
    expected = [_fresh(pruned, content) for content in contents]
    server = start(
        f"cache-{megabytes}",
        *["--plugin", "vtprune", "--prune-method", "adafv"],
        *["--prune-feature-cache-mb", str(megabytes)],
        compiled=True,
    )
    server.rpc("start_probe")
    assert [server.text(content) for content in contents] == expected
    (record,) = server.rpc("read_probe")
    assert sum(record["images"]) == len(contents)
    assert server.metric("vtprune_feature_cache_hits_total") == 0
    assert server.metric("vtprune_feature_cache_misses_total") == len(contents)
    assert server.metric("vtprune_feature_cache_bytes") <= megabytes << 20
    assert server.texts_at_once(contents) == expected
