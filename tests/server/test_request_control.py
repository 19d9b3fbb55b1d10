"""Per-request and per-image settings over HTTP, within the operator's limits, and what the answer
says about them. The server does not trust requests' processor settings."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from media import PHOTOS, data_url, photo_question, text_part
from vllm_server import Server

from vllm_pruner.compat.versions import at_least
from vllm_pruner.settings.defaults import DEFAULT_METHOD

pytestmark = pytest.mark.server

LIMITS = {"max_rate": 0.97, "min_tokens": 18, "methods": [DEFAULT_METHOD, "adafv", "attention"]}


@pytest.fixture(scope="module")
def bounded(start_shared: Callable[..., Server]) -> Server:
    limits = ["--prune-limits", json.dumps(LIMITS), "--prune-detail", '{"low": 0.9375}']
    store = {"VLLM_ENABLE_RESPONSES_API_STORE": "1"}
    flags = ["--plugin", "vtprune", "--enable-scale-out", *limits]
    return start_shared("bounded", *flags, compiled=True, **store)


def _image(index: int, **fields: Any) -> dict[str, Any]:
    url = data_url(PHOTOS[index].read_bytes())
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def _counts(answer: dict[str, Any]) -> Any:
    return answer["usage"].get("visual_tokens")


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        (None, 64),
        ({}, 64),
        ({"rate": 0.5}, 288),
        ({"tokens": 100}, 100),
        ({"method": "adafv"}, 64),
        ({"method": "attention", "tokens": 18}, 18),
        ({"options": {"alpha": 2}}, 64),
    ],
    ids=str,
)
def test_the_body_sets_the_budget_and_usage_reports_it(
    settings: Any, kept: int, bounded: Server, stock: Server
) -> None:
    body = {} if settings is None else {"vtprune": settings}
    answer = bounded.ask(photo_question(0), **body)
    assert _counts(answer) == {"original": 576, "kept": kept}
    unpruned = stock.ask(photo_question(0))["usage"]
    assert "visual_tokens" not in unpruned
    assert unpruned["prompt_tokens"] - answer["usage"]["prompt_tokens"] == 576 - kept


def test_rate_0_answers_as_stock_does_and_reports_that_all_is_kept(
    bounded: Server, stock: Server
) -> None:
    bounded.forget()
    stock.forget()  # other tests share it and may have asked the same: usage counts what was cached
    answer, expected = (
        bounded.ask(photo_question(1), vtprune={"rate": 0}),
        stock.ask(photo_question(1)),
    )
    assert answer["choices"] == expected["choices"]
    assert answer["usage"].pop("visual_tokens") == {"original": 576, "kept": 576}
    assert answer["usage"] == expected["usage"]
    text = [text_part("No image here.")]
    assert bounded.ask(text)["usage"] == stock.ask(text)["usage"]


def test_a_body_and_a_trusted_setting_mean_the_same(bounded: Server, pruned: Server) -> None:
    settings = {"method": "adafv", "tokens": 40}
    trusted = pruned.text(photo_question(2), mm_processor_kwargs={"vtprune": settings})
    assert bounded.text(photo_question(2), vtprune=settings) == trusted
    assert pruned.text(photo_question(2), vtprune=settings) == trusted
    both = pruned.post(photo_question(2), vtprune={}, mm_processor_kwargs={"vtprune": {}})
    assert both.status_code == 400
    assert "given twice" in both.json()["error"]["message"]


def test_detail_is_per_image(bounded: Server) -> None:
    content = [
        _image(0, detail="low"),
        _image(1, detail="auto"),
        _image(2, detail="high"),
        _image(3),
        text_part("Compare them."),
    ]
    assert _counts(bounded.ask(content)) == {"original": 4 * 576, "kept": 36 + 64 + 288 + 64}
    mixed = bounded.ask(content, vtprune={"rate": 0})
    assert _counts(mixed) == {"original": 4 * 576, "kept": 36 + 3 * 576}


def test_original_is_the_whole_image_within_the_limits(bounded: Server, pruned: Server) -> None:
    content = [_image(0, detail="original"), _image(1), text_part("Compare them.")]
    assert _counts(bounded.ask(content, vtprune={"tokens": 50})) == {
        "original": 2 * 576,
        "kept": 576 + 50,
    }
    alone = [_image(0, detail="original"), text_part("What?")]
    plain = [_image(0), text_part("What?")]
    assert pruned.text(alone) == pruned.text(plain, vtprune={"rate": 0})


def test_a_prompt_that_is_only_counted_may_be_of_any_length_and_is_no_traffic(
    bounded: Server,
) -> None:
    before = bounded.metrics("vtprune_requests_total")
    content = [_image(index % 3) for index in range(8)] + [text_part("Compare them.")]
    for rate, kept in ((0, 8 * 576), (0.05, 8 * 547)):
        refused = bounded.post(content, vtprune={"rate": rate})
        assert refused.status_code == 400
        assert "of 8 images, for a model of 4096" in refused.json()["error"]["message"]
        messages = [{"role": "user", "content": content}]
        body = {"model": "demo", "messages": messages, "vtprune": {"rate": rate}}
        told = bounded.client.post("/tokenize", json=body).json()
        assert kept < told["count"] < kept + 100
    assert bounded.metrics("vtprune_requests_total") == before


def test_an_image_left_alone_beside_a_pruned_one_is_the_stock_image(
    bounded: Server, stock: Server
) -> None:
    """The unpruned image comes first, so its part of the prompt is the stock one to the end."""
    content = [_image(0), _image(1, detail="low"), text_part("Compare.")]
    bounded.forget()
    mixed = bounded.text(content, vtprune={"rate": 0})
    assert bounded.text(photo_question(0), vtprune={"rate": 0}) == stock.text(photo_question(0))
    assert bounded.text(content, vtprune={"rate": 0}) == mixed
    bounded.forget()
    assert bounded.text(content, vtprune={"rate": 0}) == mixed


def test_the_last_streamed_chunk_reports_too(bounded: Server) -> None:
    whole = bounded.ask(photo_question(0), vtprune={"tokens": 50})
    options = {"stream": True, "stream_options": {"include_usage": True}}
    events = bounded.post(photo_question(0), vtprune={"tokens": 50}, **options).text.split("\n\n")
    assert [event for event in events if event][-1] == "data: [DONE]"
    chunks = [json.loads(e.removeprefix("data: ")) for e in events if e and "[DONE]" not in e]
    assert chunks[-1]["usage"] == {
        key: value for key, value in whole["usage"].items() if value is not None
    }
    assert _counts(chunks[-1]) == {"original": 576, "kept": 50}
    pieces = [c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"]]
    assert "".join(pieces) == whole["choices"][0]["message"]["content"]


def test_a_response_reports_too(bounded: Server) -> None:
    picture = {"type": "input_image", "image_url": data_url(PHOTOS[0].read_bytes())}
    content = [{**picture, "detail": "auto"}, {"type": "input_text", "text": "What?"}]
    body = {"model": "demo", "input": [{"role": "user", "content": content}]}
    body |= {"vtprune": {"tokens": 50}, "max_output_tokens": 4, "temperature": 0}
    whole = bounded.client.post("/v1/responses", json=body)
    assert whole.status_code == 200, whole.text
    assert _counts(whole.json()) == {"original": 576, "kept": 50}
    lines = bounded.client.post("/v1/responses", json={**body, "stream": True}).text.splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line[:6] == "data: "]
    last = events[-1]
    # Four tokens end no answer; vLLM says so in the event's name from 0.33 on.
    assert last["type"] == f"response.{'incomplete' if at_least((0, 33)) else 'completed'}"
    assert _counts(last["response"]) == {"original": 576, "kept": 50}
    unpruned = bounded.client.post("/v1/responses", json={**body, "vtprune": {"rate": 0}}).json()
    assert _counts(unpruned) == {"original": 576, "kept": 576}
    queued = bounded.client.post("/v1/responses", json={**body, "background": True})
    assert _told(queued) == ("576", "50")
    address, end = f"/v1/responses/{queued.json()['id']}", time.monotonic() + 60
    while not (done := bounded.client.get(address).json())["usage"]:
        assert time.monotonic() < end, done
        time.sleep(0.1)
    assert _counts(done) == {"original": 576, "kept": 50}


HEADERS = ("x-vtprune-original-tokens", "x-vtprune-kept-tokens")


def _told(response: httpx.Response) -> tuple[str | None, ...]:
    """The counts in the headers of an answer."""
    assert response.status_code == 200, response.text
    return tuple(response.headers.get(name) for name in HEADERS)


@pytest.mark.parametrize("more", [{}, {"stream": True}], ids=str)
def test_headers_report_too_before_a_stream_begins(
    more: dict[str, Any], bounded: Server, stock: Server
) -> None:
    half = bounded.post(photo_question(0), vtprune={"rate": 0.5}, **more)
    assert _told(half) == ("576", "288")
    assert _told(bounded.post(photo_question(0), vtprune={"rate": 0}, **more)) == ("576", "576")
    assert _told(bounded.post([text_part("No image.")], **more)) == (None, None)
    assert _told(stock.post(photo_question(0), **more)) == (None, None)


def _message(index: int, **body: Any) -> dict[str, Any]:
    """A body of `/v1/messages` about a photograph."""
    data = base64.b64encode(PHOTOS[index].read_bytes()).decode()
    source = {"type": "base64", "media_type": "image/jpeg", "data": data}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
    messages = [{"role": "user", "content": content}]
    return {"model": "demo", "messages": messages, "max_tokens": 4, "temperature": 0, **body}


@pytest.mark.parametrize(
    ("settings", "kept"), [(None, 64), ({"tokens": 50}, 50), ({"rate": 0}, 576)]
)
def test_anthropics_messages_have_settings_and_counts(
    settings: Any, kept: int, bounded: Server
) -> None:
    body = _message(0) if settings is None else _message(0, vtprune=settings)
    whole = bounded.client.post("/v1/messages", json=body)
    assert _told(whole) == ("576", str(kept))
    assert _counts(whole.json()) == {"original": 576, "kept": kept}
    assert whole.json()["content"][0]["type"] == "text"
    streamed = bounded.client.post("/v1/messages", json={**body, "stream": True})
    assert _told(streamed) == ("576", str(kept))
    lines = [line for line in streamed.text.splitlines() if line.startswith("data: {")]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    (last,) = [event for event in events if event["type"] == "message_delta"]
    assert last["usage"].pop("visual_tokens") == {"original": 576, "kept": kept}
    assert {"input_tokens", "output_tokens"} <= last["usage"].keys()


def test_anthropics_count_is_of_what_is_kept(bounded: Server) -> None:
    def count(**body: Any) -> int:
        body = _message(0, **body)
        del body["max_tokens"], body["temperature"]
        answer = bounded.client.post("/v1/messages/count_tokens", json=body)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["input_tokens"])

    assert count(vtprune={"rate": 0}) - count(vtprune={"tokens": 50}) == 526


def test_a_batch_of_conversations_reports_their_sum(bounded: Server) -> None:
    conversations = [[{"role": "user", "content": photo_question(index)}] for index in (0, 1)]
    conversations.append([{"role": "user", "content": "No image."}])
    body = {"model": "demo", "messages": conversations, "max_tokens": 4, "temperature": 0}
    whole = bounded.client.post(
        "/v1/chat/completions/batch", json=body | {"vtprune": {"tokens": 50}}
    )
    assert _told(whole) == ("1152", "100")
    assert _counts(whole.json()) == {"original": 1152, "kept": 100}
    alone = bounded.ask(photo_question(0), vtprune={"tokens": 50}, max_tokens=4)
    first = whole.json()["choices"][0]["message"]["content"]
    assert first == alone["choices"][0]["message"]["content"]


def test_resize_says_what_it_keeps_of_its_budget(pruned: Server) -> None:
    answer = pruned.post(photo_question(0), vtprune={"method": "resize", "tokens": 58})
    assert _counts(answer.json()) == {"original": 576, "kept": 56}, "7 x 8"
    assert _told(answer) == ("576", "56")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"vtprune": {"rate": 0.98}}, "rate is 0.98; allowed here: rates from 0 to 0.97"),
        ({"vtprune": {"tokens": 4}}, "tokens is 4; allowed here: 18 or more"),
        ({"vtprune": {"method": "random"}}, f"allowed here: {DEFAULT_METHOD}, adafv, attention"),
        ({"vtprune": {"rate": 0.97}}, "which keeps 17 of an image's 576 tokens"),
        ({"vtprune": {"rate": 1}}, "rate is 1; it should be less than 1"),
        ({"vtprune": {"tokens": 600}}, "tokens is 600; allowed: 1 to 576"),
        ({"vtprune": 0.5}, "settings are 0.5"),
        ({"vtprune": {"detail": ["low"]}}, "detail is ['low'] but there is no such key"),
        ({"mm_processor_kwargs": {"vtprune": {"rate": 0.5}}}, "--trust-request-mm-kwargs"),
        ({"vtprune": {}, "mm_processor_kwargs": {"do_resize": False}}, "--trust-request-mm-kwargs"),
        ({"vtprun": {"rate": 0.5}}, "vtprun is given but there is no such key; allowed: vtprune"),
        ({"extra_body": {"vtprune": {"rate": 0.5}}}, "extra_body.vtprune is given"),
        ({"vtprune": {}, "media_io_kwargs": {"image": {}}}, "--trust-request-mm-kwargs"),
    ],
    ids=str,
)
def test_out_of_bounds_is_a_400_that_says_them(body: Any, sentence: str, bounded: Server) -> None:
    response = bounded.post(photo_question(0), **body)
    assert response.status_code == 400
    assert sentence in response.json()["error"]["message"]
    assert bounded.text(photo_question(0))


def test_bad_settings_without_an_image_and_bad_details_are_refused(bounded: Server) -> None:
    response = bounded.post([text_part("Hello.")], vtprune={"rate": 2})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "vtprune")
    response = bounded.post([_image(0, detail="tiny"), text_part("What?")])
    assert response.status_code == 400
    assert (
        "detail is 'tiny'; allowed: auto, low, high, original"
        in response.json()["error"]["message"]
    )


def test_requests_with_different_settings_at_once_are_answered_as_alone(bounded: Server) -> None:
    bodies = [
        {"vtprune": {"method": method, "tokens": tokens}}
        for method in (DEFAULT_METHOD, "adafv", "attention")
        for tokens in (20, 64, 200)
    ]
    alone = []
    for index, body in enumerate(bodies):
        bounded.forget()
        alone.append(bounded.text(photo_question(index), **body))
    bounded.forget()
    with ThreadPoolExecutor(len(bodies)) as pool:
        together = pool.map(
            lambda pair: bounded.text(photo_question(pair[0]), **pair[1]), enumerate(bodies)
        )
    assert list(together) == alone


@pytest.mark.parametrize(
    "route", ["/v1/messages/render", "/v1/completions/render", "/inference/v1/generate"]
)
def test_a_route_that_reads_no_settings_refuses_them(route: str, bounded: Server) -> None:
    body = {"model": "demo", "messages": [], "prompt": "A cat", "max_tokens": 4}
    for said in ({"vtprune": {}}, {"vtprune": {"rate": 9}}, {"vtprun": {"rate": 0.5}}):
        error = bounded.client.post(route, json={**body, **said}).json()["error"]
        assert (error["code"], error["param"]) == (400, "vtprune")
    assert "vtprun" not in bounded.client.post(route, json=body).text
