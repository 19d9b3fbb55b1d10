"""How sure the demo is of its answers, in usage, and what it answers again with every token."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import pytest
from media import image_part, text_part
from vllm_server import Server
from vtprune_evaluate.datasets.synthetic import SYNTHETIC

pytestmark = pytest.mark.server

HARSH = {"method": "random", "tokens": 6}
"""Of 256 visual tokens: answers become guesses."""
N, ALWAYS = 256, 99.0
"""A margin that no answer reaches."""


@pytest.fixture(scope="module")
def contents() -> list[list[dict[str, Any]]]:
    items = islice(SYNTHETIC.items(None, 40), 8)
    return [[image_part(item.load(), "image/png"), text_part(item.prompt)] for item in items]


def _ask(server: Server, content: Any, settings: dict[str, Any], **body: Any) -> dict[str, Any]:
    return server.ask(content, vtprune={**HARSH, **settings}, **body)


def _text(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


def _margin(answer: dict[str, Any]) -> float:
    """Of the first token, by what vLLM itself says of an answer."""
    top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    first, second = sorted((each["logprob"] for each in top), reverse=True)[:2]
    return float(first - second)


def _stream(server: Server, content: Any, **body: Any) -> tuple[str, dict[str, Any]]:
    """The text of a stream, and its usage."""
    options = {"stream": True, "stream_options": {"include_usage": True}}
    lines = server.post(content, **options, **body).text.split("\n\n")
    assert lines[-2] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    text = "".join(c["delta"].get("content") or "" for each in chunks for c in each["choices"])
    return text, chunks[-1]["usage"]


def test_the_margin_is_that_of_vllms_own_log_probabilities(answering: Server, contents) -> None:
    for content in contents[:3]:
        plain = _ask(answering, content, {}, logprobs=True, top_logprobs=5)
        sure = _ask(answering, content, {"confidence": True}, logprobs=True, top_logprobs=5)
        assert sure["usage"].pop("confidence") == {
            "margin": pytest.approx(_margin(plain), abs=1e-3)
        }
        assert sure["choices"] == plain["choices"]


def test_the_coverage_of_a_new_image_grows_with_what_is_kept(answering: Server) -> None:
    """Of an image that was encoded for somebody who did not ask it is not known."""
    item = next(islice(SYNTHETIC.items(None, 60), 50, None))
    content = [image_part(item.load(), "image/png"), text_part(item.prompt)]
    found = []
    for tokens in (2, 8, 32, 128):
        usage = _ask(answering, content, {"tokens": tokens, "confidence": True})["usage"]
        found.append(usage["confidence"]["coverage"])
    assert found == sorted(set(found)) and found[0] >= -1 and found[-1] < 1
    assert _ask(answering, content, {"tokens": 8, "confidence": True})["usage"]["confidence"][
        "coverage"
    ] == pytest.approx(found[1], abs=1e-4)
    whole = {"tokens": N, "confidence": True}
    assert _ask(answering, content, whole)["usage"]["confidence"]["coverage"] == 1
    _ask(answering, content, {"tokens": 9})
    usage = _ask(answering, content, {"tokens": 9, "confidence": True})["usage"]
    assert set(usage["confidence"]) == {"margin"}
    both = [*content[:1], *_other(60, 51), *content[1:]]
    _, usage = _stream(answering, both, vtprune={**HARSH, "tokens": 3, "confidence": True})
    assert -1 <= usage["confidence"]["coverage"] < found[1]


def _other(seed: int, number: int) -> list[dict[str, Any]]:
    item = next(islice(SYNTHETIC.items(None, seed), number, None))
    return [image_part(item.load(), "image/png")]


@pytest.mark.parametrize(
    "body", [{}, {"logprobs": True}, {"logprobs": True, "top_logprobs": 1}], ids=str
)
def test_it_changes_nothing_else_of_an_answer(answering: Server, contents, body: Any) -> None:
    plain = _ask(answering, contents[0], {}, **body)
    sure = _ask(answering, contents[0], {"confidence": True}, **body)
    assert sure["usage"].pop("confidence")["margin"] >= 0
    assert (sure["choices"], sure["usage"]) == (plain["choices"], plain["usage"])
    text, usage = _stream(answering, contents[0], vtprune={**HARSH, "confidence": True}, **body)
    assert text == _text(plain) and usage["confidence"]["margin"] >= 0


def test_an_answer_below_the_bound_is_made_again_with_every_token(
    answering: Server, contents
) -> None:
    """Both are paid, and the one that is given is the unpruned one."""
    before = answering.metrics("vtprune_requests_total")
    content = contents[0]
    pruned, whole = _ask(answering, content, {}), answering.ask(content, vtprune={"rate": 0})
    usage = (again := _ask(answering, content, {"retry_unpruned_below": ALWAYS}))["usage"]
    assert again["choices"] == whole["choices"]
    assert usage["visual_tokens"] == {"original": N, "kept": N}
    told = usage["confidence"]
    first = told.pop("first")
    assert told.pop("margin") >= 0 and told == {"retried": True}
    assert first["visual_tokens"] == {"original": N, "kept": 6}
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert usage[name] == pruned["usage"][name] + whole["usage"][name], name
    assert first["prompt_tokens"] == pruned["usage"]["prompt_tokens"]
    after = answering.metrics("vtprune_requests_total")
    change = {name: count - before.get(name, 0) for name, count in after.items()}
    assert change['vtprune_requests_total{method="random"}'] == 2
    assert change['vtprune_requests_total{method="none"}'] == 2, "what is paid is counted"
    assert answering.metric("vtprune_retries_total") >= 1


def test_only_answers_below_the_bound_are(answering: Server, contents) -> None:
    """The margin that an answer has decides, on either side of it."""
    margins = [
        _ask(answering, content, {"confidence": True})["usage"]["confidence"]["margin"]
        for content in contents
    ]
    bound = sorted(margins)[len(margins) // 2]
    told = [
        _ask(answering, content, {"retry_unpruned_below": bound})["usage"]["confidence"]
        for content in contents
    ]
    assert [each["retried"] for each in told] == [margin < bound for margin in margins]
    assert {each["retried"] for each in told} == {True, False}


def test_a_stream_begins_when_its_answer_stands(answering: Server, contents) -> None:
    """Its first event waits for the first token; what is dropped is not generated further."""
    content, body = contents[1], {"max_tokens": 40, "ignore_eos": True}
    whole = answering.text(content, vtprune={"rate": 0}, **body)
    retry = {**HARSH, "retry_unpruned_below": ALWAYS}
    text, usage = _stream(answering, content, vtprune=retry, **body)
    assert text == whole
    first = usage["confidence"]["first"]
    assert first["completion_tokens"] < 40
    assert usage["completion_tokens"] == 40 + first["completion_tokens"]
    assert usage["visual_tokens"] == {"original": N, "kept": N}
    assert answering.metric("vllm:num_requests_running") == 0
    sure = {**HARSH, "retry_unpruned_below": 1e-9}
    text, usage = _stream(answering, content, vtprune=sure, **body)
    assert text == _text(_ask(answering, content, {}, **body))
    assert usage["confidence"]["retried"] is False


def test_what_does_not_fit_unpruned_stays_and_says_so(answering: Server, contents) -> None:
    """Seventeen images of 256 tokens, and 4,096 positions."""
    many = [*contents[0][:1] * 17, *contents[0][1:]]
    settings = {"retry_unpruned_below": ALWAYS}
    usage = _ask(answering, many, settings)["usage"]
    assert usage["visual_tokens"]["kept"] == 17 * 6
    assert usage["confidence"]["retried"] is False
    assert "4096" in usage["confidence"]["refused"]
    text, usage = _stream(answering, many, vtprune={**HARSH, **settings})
    assert text and "4096" in usage["confidence"]["refused"]


def test_what_was_not_pruned_is_not_made_again(answering: Server, contents) -> None:
    settings = {"rate": 0, "retry_unpruned_below": ALWAYS}
    usage = answering.ask(contents[0], vtprune=settings)["usage"]
    assert usage["confidence"]["retried"] is False
    usage = answering.ask("Hello", vtprune={"retry_unpruned_below": ALWAYS})["usage"]
    assert usage["confidence"]["retried"] is False and "visual_tokens" not in usage


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"vtprune": {"confidence": 3}}, "confidence is 3"),
        ({"vtprune": {"retry_unpruned_below": 0}}, "it should be greater than 0"),
        (
            {"vtprune": {"confidence": True}, "logprobs": True, "logprob_token_ids": [1]},
            "beside logprob_token_ids; allowed: one of the two",
        ),
        (
            {"vtprune": {"confidence": True}, "use_beam_search": True, "n": 2},
            "beside use_beam_search; allowed: one of the two",
        ),
    ],
    ids=str,
)
def test_wishes_that_cannot_be_are_refused(
    answering: Server, contents, body: Any, sentence: str
) -> None:
    response = answering.post(contents[0], **body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "vtprune")
    assert sentence in response.json()["error"]["message"]


@pytest.mark.parametrize("route", ["/v1/responses", "/v1/messages", "/v1/chat/completions/batch"])
def test_other_routes_refuse_them(answering: Server, route: str) -> None:
    message = {"role": "user", "content": "Hello"}
    body: dict[str, Any] = {"model": "demo", "max_tokens": 4, "vtprune": {"confidence": True}}
    body |= {"input": "Hello"} if "responses" in route else {"messages": [message]}
    if "batch" in route:
        body["messages"] = [[message]]
    response = answering.client.post(route, json=body)
    assert response.status_code == 400, response.text
    assert "confidence is asked for; allowed: in chat completions, one by one" in response.text
